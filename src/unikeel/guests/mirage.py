"""MirageOS guests: options of the unikernel itself, then its arguments: ``--ipv4=ADDRESS/PREFIX --ipv4-gateway=GATEWAY ARGUMENTS…``

A network device that is not called ``service`` has its name in its options: ``--management-ipv4=…`` (MirageOS, runtime arguments). Environment variables and
a DNS server do not reach it. Arguments are joined with single spaces, as urunc does.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.guests.contract import Guest, Plain, Solo5Devices, joined, told, within
from unikeel.lean import Final
from unikeel.model.plan import ExitRule, LaunchRequest
from unikeel.model.rootfs import BlockSupport

#: Solo5's limit (include/solo5/spt_abi.h, hvt_abi.h: 8192 bytes with the NUL).
CMDLINE_LIMIT: Final = 8191


class Mirage(Plain):
    """The guest type ``mirage``."""

    name = "mirage"
    #: It reads the device itself.
    block = BlockSupport(supported=True, single=True)
    initrd = False
    network = True
    addressed = True
    arguments = True
    environment = False
    shared: tuple[str, ...] = ()
    modern = False
    exit = ExitRule.SOLO5_EXIT
    devices = Solo5Devices("service", "storage")
    powerdown = False

    def machine(self, accel: str, wish: str) -> str:
        """q35, if the image has no wish: Solo5's virtio drivers are for PCI."""
        del accel
        return wish or "q35"

    def cmdline(self, request: LaunchRequest) -> str:
        """Its options and arguments, at most 8191 bytes."""
        return within(" ".join(word for word in _words(request) if word), CMDLINE_LIMIT, self.name)


def _words(request: LaunchRequest) -> Iterator[str]:
    network = told(request)
    if network is not None:
        device = request.guest.net_device or GUEST.devices.net
        prefix = "" if device == GUEST.devices.net else f"{device}-"
        yield f"--{prefix}ipv4={network.address}/{network.prefix}"
        yield f"--{prefix}ipv4-gateway={network.gateway}"
    yield joined(request)


GUEST: Final[Guest] = Mirage()
