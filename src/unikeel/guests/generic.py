"""Any guest that boots by ``-kernel`` and reads its own command line: the line is passed through as it is.

Arguments are joined with single spaces and not quoted, since nobody but the guest knows what a quote means to it. Environment variables
do not reach it. Network settings do not, either: it asks by DHCP, or is told by its arguments.
"""

from __future__ import annotations

from unikeel.guests.contract import Guest, Plain, Solo5Devices, joined, within
from unikeel.lean import Final
from unikeel.model.plan import ExitRule, LaunchRequest
from unikeel.model.rootfs import BlockSupport

#: One page with its NUL: more than any loader that we met cuts off.
CMDLINE_LIMIT: Final = 4095


class Generic(Plain):
    """The guest type ``generic``."""

    name = "generic"
    block = BlockSupport(supported=True)
    initrd = True
    network = True
    addressed = False
    arguments = True
    environment = False
    shared: tuple[str, ...] = ()
    modern = False
    exit = ExitRule.DEBUG_EXIT
    devices = Solo5Devices()
    powerdown = False

    def machine(self, accel: str, wish: str) -> str:
        """microvm, if the image has no wish: a unikernel starts there three times as fast as on q35 (24 ms against 72, measured)."""
        del accel
        return wish or "microvm"

    def cmdline(self, request: LaunchRequest) -> str:
        """The arguments, or the image's command line if there are none."""
        return within(joined(request), CMDLINE_LIMIT, self.name)


GUEST: Final[Guest] = Generic()
