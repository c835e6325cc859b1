"""Solo5's hvt: a unikernel in a virtual machine with hardly any devices. It needs KVM. Its arguments are in :mod:`unikeel.monitors.solo5`."""

from __future__ import annotations

from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.plan import LaunchPlan, LaunchRequest
from unikeel.monitors import solo5
from unikeel.monitors.checking import accelerated
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

_WANTED: Final = Wanted(
    "hvt",
    "solo5-hvt",
    (0, 6),
    "monitor.hvt_path",
    "build Solo5 (opam install solo5) and put solo5-hvt into PATH, or set monitor.hvt_path",
)


class Hvt:
    """The monitor ``hvt``."""

    name = "hvt"
    traits = Traits(networks=("tap",), disks=("raw",), shared=(), accels=("kvm",), bare_frames=True)

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        return program_facts(_WANTED, path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        accelerated(request, self.traits)
        return solo5.plan(request, guest, facts, self.traits, ("/dev/kvm",))

    def complaint(self, stderr: bytes) -> str:
        """See :func:`unikeel.monitors.solo5.complaint`."""
        return solo5.complaint(stderr, "solo5-hvt")


MONITOR: Final = Hvt()
