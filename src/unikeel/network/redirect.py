"""What traffic of a link leads to which guest: pure decisions, as filters.

The first guest of a namespace takes all that comes in at the link. Further ones share its addresses, so that they can only get what others do not: the ports that
they answer on. Whose neighbour somebody is, ARP and IPv6's neighbour discovery, all of them are told.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.kernel.traffic import ARP, EVERY_PROTOCOL, IPV4, IPV6, Filter, Key
from unikeel.lean import Final
from unikeel.network.ports import Forwarded

#: The filter of the first guest comes after all others, and there can be only one with its handle.
LAST: Final = 0xFFF0
_ONLY: Final = 1
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_ICMPV6: Final = 58


def everything(target: int) -> Filter:
    """All frames that no other filter has taken, to one interface; there can be only one such filter."""
    return Filter(EVERY_PROTOCOL, target, LAST, handle=_ONLY)


def back(target: int) -> Filter:
    """All frames of a guest, to the link."""
    return Filter(EVERY_PROTOCOL, target)


def shares(target: int, ports: Forwarded) -> Iterator[Filter]:
    """What a further guest gets: packets to its ports, and copies of what tells who has which address."""
    yield Filter(ARP, target, copy=True)
    yield Filter(IPV6, target, keys=(_next_header(_ICMPV6),), copy=True)
    for protocol, ranges in (("tcp", ports.tcp), ("udp", ports.udp)):
        number = _PROTOCOLS[protocol]
        for first, last in ranges:
            for port, mask in blocks(first, last):
                yield Filter(IPV4, target, keys=(Key(8, 0x00FF0000, number << 16), Key(20, mask, port)))
                yield Filter(IPV6, target, keys=(_next_header(number), Key(40, mask, port)))


def _next_header(number: int) -> Key:
    return Key(4, 0x0000FF00, number << 8)


def blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of ports as values under masks of 16 bits: the fewest whose sizes are powers of two."""
    while first <= last:
        size = first & -first or 0x10000
        while size > last - first + 1:
            size //= 2
        yield first, 0xFFFF & ~(size - 1)
        first += size
