"""Mewz guests (WebAssembly): the network's settings and nothing else, ``ip=ADDRESS/PREFIX gateway=GATEWAY``.

The program is in the kernel; arguments, environment variables and a DNS server do not reach it. It wants half a gigabyte of memory.
"""

from __future__ import annotations

from unikeel.guests.contract import Guest, Plain, Solo5Devices, told, within
from unikeel.lean import Final
from unikeel.model.plan import ExitRule, LaunchRequest
from unikeel.model.rootfs import BlockSupport

CMDLINE_LIMIT: Final = 2047


class Mewz(Plain):
    """The guest type ``mewz``."""

    name = "mewz"
    block = BlockSupport(supported=False)
    initrd = False
    network = True
    addressed = True
    arguments = False
    environment = False
    shared: tuple[str, ...] = ()
    modern = True
    exit = ExitRule.DEBUG_EXIT
    devices = Solo5Devices()
    powerdown = False

    def machine(self, accel: str, wish: str) -> str:
        """q35, if the image has no wish: its drivers are for PCI."""
        del accel
        return wish or "q35"

    def cmdline(self, request: LaunchRequest) -> str:
        """The network's settings."""
        network = told(request)
        line = f"ip={network.address}/{network.prefix} gateway={network.gateway}" if network is not None else ""
        return within(line, CMDLINE_LIMIT, self.name)


GUEST: Final[Guest] = Mewz()
