"""Solo5's spt: a unikernel in a process that may make seven system calls. It needs no virtualization. Its arguments are in :mod:`unikeel.monitors.solo5`.

The sandbox's own filter of system calls lies around the tender's, which it loads by itself before the guest's first instruction.
"""

from __future__ import annotations

from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.plan import LaunchPlan, LaunchRequest
from unikeel.monitors import solo5
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

_WANTED: Final = Wanted(
    "spt",
    "solo5-spt",
    (0, 6),
    "monitor.spt_path",
    "build Solo5 (opam install solo5) and put solo5-spt into PATH, or set monitor.spt_path",
)


class Spt:
    """The monitor ``spt``."""

    name = "spt"
    traits = Traits(networks=("tap",), disks=("raw",), shared=(), accels=(), bare_frames=True)

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        return program_facts(_WANTED, path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        return solo5.plan(request, guest, facts, self.traits, ())

    def complaint(self, stderr: bytes) -> str:
        """See :func:`unikeel.monitors.solo5.complaint`."""
        return solo5.complaint(stderr, "solo5-spt")


MONITOR: Final = Spt()
