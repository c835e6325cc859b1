"""From a container's limits to a guest's memory and processors, and to the limits of its monitor: pure arithmetic.

A limit is the container's, as its user wrote it; a MiB is 2 to the power of 20 bytes, and a guest is never given more than the limit's whole ones. A monitor
needs something beside its guest's memory, the *allowance*. Where somebody pays for that apart (a pod's overhead, or nobody limits what is above), the guest gets
the whole limit and the monitor's cgroup the allowance on top. Else both have to live within the limit.
"""

from __future__ import annotations

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.values import NamedTuple

MIB: Final = 1 << 20
#: The least memory of a guest, in MiB.
LEAST_MIB: Final = 16
#: The most processors of a guest.
MOST_CPUS: Final = 255


class Memory(NamedTuple):
    """``guest_mib`` is the guest's RAM; ``allowance`` is what its monitor's cgroup gets on top of that, in bytes.

    ``on_top`` is what the cgroup's limit has beyond the container's, in bytes: the allowance, or nothing.
    """

    guest_mib: int
    allowance: int
    on_top: int


def memory(limit: int, allowance: int, room: int | None = None) -> Memory:
    """A guest's memory.

    :param limit: of the container, in bytes. :param allowance: for the monitor, in bytes.
    :param room: the limit of the cgroup above (a pod's) in bytes, or None: it has none.
    :raises InvalidArgument: too little is left for a guest.
    """
    within = room is not None and room < limit + allowance
    guest = (limit - allowance if within else limit) // MIB
    if guest < LEAST_MIB:
        hint = f"give at least {LEAST_MIB} MiB"
        if within:
            needed = LEAST_MIB + -(-allowance // MIB)
            hint = f"give at least {needed} MiB, or the pod an overhead of {allowance // MIB} MiB (its RuntimeClass)"
        raise InvalidArgument(f"{max(0, guest)} MiB of memory are too little for a guest", hint)
    # What is left of a limit that is no whole number of MiB stays the monitor's.
    return Memory(guest, limit - guest * MIB, 0) if within else Memory(guest, allowance, allowance)


def processors(quota: int, period: int, cpuset: str) -> int:
    """How many processors a guest gets by its limits: as many as the quota fills, and no more than the set has; 0: nothing limits them.

    :param quota: µs of processor time in each ``period`` (µs; 0: 100000), 0 or less: no limit. :param cpuset: as ``0-3,8``, or empty.
    :raises InvalidArgument: the set is none.
    """
    wished = [-(-quota // (period or 100_000))] if quota > 0 else []
    if cpuset.strip():
        wished.append(count(cpuset))
    return min(*wished, MOST_CPUS) if wished else 0


def count(cpuset: str) -> int:
    """How many processors a set has (cpuset(7), formats: list). :raises InvalidArgument: it is none."""
    found: set[int] = set()
    for part in cpuset.strip().split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends) or int(ends[0]) > int(ends[1]):
            raise InvalidArgument(f"{cpuset[:80]!r} is no set of processors", "write numbers and ranges: 0-3,8")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return len(found)
