"""Unikraft guests: one line of library parameters, then ``--``, then the program's arguments.

``Unikraft env.vars=[ A=1 B=2 ] netdev.ip=ADDRESS/PREFIX:GATEWAY:DNS vfs.fstab=[ "initrd0:/:extract:::" ] -- ARGUMENTS…``

The parameters are those of its libraries (Unikraft, lib/ukparam, lib/posix-environ, lib/uknetdev, lib/vfscore). Versions before 0.16.1 had other ones
and no environment: ``Unikraft netdev.ipv4_addr=… netdev.ipv4_gw_addr=… netdev.ipv4_subnet_mask=… vfs.rootfs=initrd -- ARGUMENTS…``. An image that does
not name its version is taken for a current one, as urunc does. Arguments are joined with single spaces and not quoted, also as urunc does.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import BadContent, InvalidArgument
from unikeel.guests.contract import Guest, Plain, Solo5Devices, joined, told, within
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.plan import ROOT_SHARE, ExitRule, LaunchRequest, Net
from unikeel.model.rootfs import BlockSupport

#: As much as a Linux loader of x86 passes on with its NUL; Unikraft takes over what its loader gives it.
CMDLINE_LIMIT: Final = 2047
#: The first version with today's parameters.
CURRENT: Final = (0, 16, 1)
_FIRST_WORD: Final = "Unikraft"


class Unikraft(Plain):
    """The guest type ``unikraft``."""

    name = "unikraft"
    block = BlockSupport(supported=False)
    initrd = True
    network = True
    addressed = True
    arguments = True
    environment = True
    shared: tuple[str, ...] = ("9p",)
    modern = False
    exit = ExitRule.SOLO5_EXIT
    devices = Solo5Devices()
    powerdown = False

    def machine(self, accel: str, wish: str) -> str:
        """q35, if the image has no wish: its drivers are for PCI."""
        del accel
        return wish or "q35"

    def cmdline(self, request: LaunchRequest) -> str:
        """Its parameters and arguments. :raises BadContent: the image's version cannot be read."""
        words = _older(request) if version(request) < CURRENT else _current(request)
        return within(" ".join((_FIRST_WORD, *words, "--", joined(request))).rstrip(), CMDLINE_LIMIT, self.name)


def version(request: LaunchRequest) -> tuple[int, ...]:
    """The version that the image names, :data:`CURRENT` if none. :raises BadContent: it is none."""
    text = request.guest.version
    if not text:
        return CURRENT
    numbers = text.removeprefix("v").partition("-")[0].partition("+")[0].split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in numbers):
        raise BadContent(f"Unikraft's version {quote(text)} is none", "write numbers with dots between, such as 0.18.0")
    found = tuple(map(int, numbers))
    return found + (0,) * (len(CURRENT) - len(found))


def _current(request: LaunchRequest) -> Iterator[str]:
    if request.env:
        yield f"env.vars=[ {' '.join(map(_element, request.env))} ]"
    network = told(request)
    if network is not None:
        yield _ip(network)
    if request.initrd:
        yield 'vfs.fstab=[ "initrd0:/:extract:::" ]'
    elif request.share(ROOT_SHARE) is not None:
        yield f'vfs.fstab=[ "{ROOT_SHARE}:/:9pfs:::" ]'


def _ip(network: Net) -> str:
    dns = f":{network.dns}" if network.dns else ""
    return f"netdev.ip={network.address}/{network.prefix}:{network.gateway}{dns}"


def _older(request: LaunchRequest) -> Iterator[str]:
    """Variables are left out: those versions have no way to say them."""
    network = told(request)
    if network is not None:
        yield f"netdev.ipv4_addr={network.address}"
        yield f"netdev.ipv4_gw_addr={network.gateway}"
        yield f"netdev.ipv4_subnet_mask={network.netmask}"
    if request.initrd:
        yield "vfs.rootfs=initrd"


def _element(variable: str) -> str:
    """A variable as an element of a list. :raises InvalidArgument: a bracket or a quote in it would end the list or the element."""
    if any(char in variable for char in "[]\"'"):
        raise InvalidArgument(
            f"the variable {quote(variable)} cannot be passed to Unikraft: its lists know no escape for brackets and quotes"
        )
    return f'"{variable}"' if any(char.isspace() for char in variable) else variable


GUEST: Final[Guest] = Unikraft()
