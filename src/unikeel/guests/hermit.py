"""Hermit guests: ``ip=ADDRESS/PREFIX gateway=GATEWAY -- ARGUMENTS…``; the separator only between the two.

The kernel is Hermit's loader, the initrd the program. Environment variables and a DNS server do not reach it. Arguments are joined with single
spaces, as urunc does.
"""

from __future__ import annotations

from unikeel.guests.contract import Guest, Plain, Solo5Devices, joined, told, within
from unikeel.lean import Final
from unikeel.model.plan import ExitRule, LaunchRequest
from unikeel.model.rootfs import BlockSupport

CMDLINE_LIMIT: Final = 2047


class Hermit(Plain):
    """The guest type ``hermit``."""

    name = "hermit"
    block = BlockSupport(supported=False)
    initrd = True
    network = True
    addressed = True
    arguments = True
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
        """The network's settings and the arguments."""
        network = told(request)
        settings = f"ip={network.address}/{network.prefix} gateway={network.gateway}" if network is not None else ""
        return within(" -- ".join(part for part in (settings, joined(request)) if part), CMDLINE_LIMIT, self.name)


GUEST: Final[Guest] = Hermit()
