"""Which guest runs on which monitor, and how sure that is: the table behind docs/monitors.md, ``unikeel doctor`` and (by its keys) validation.

A pair is *booted* where the tests boot it, *tried* where it was booted by hand or by a test that needs files which are not here, and *compared* where no machine of
ours can run it: then its whole plan is compared with what its sources say.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from unikeel.lean import Final
from unikeel.model.names import PAIRS
from unikeel.values import NamedTuple


class Proof(Enum):
    """How it is known that a pair works."""

    BOOTED = "booted in the tests"
    TRIED = "booted where its files are named"
    COMPARED = "plan compared, not booted"
    NOT_OFFERED = "not offered by this version"


class Pair(NamedTuple):
    """A monitor and a guest that fit, and how sure that is."""

    monitor: str
    guest: str
    proof: Proof
    #: What the proof is, or why there is no better one.
    remark: str


_KVM: Final = "needs a KVM that works"
_PROOFS: Final[dict[tuple[str, str], tuple[Proof, str]]] = {
    ("qemu", "linux"): (Proof.BOOTED, "block, initrd and network, confined, also under containerd"),
    ("qemu", "generic"): (Proof.BOOTED, "block and initrd, microvm and q35, also under containerd"),
    ("qemu", "unikraft"): (Proof.TRIED, "with Unikraft's own helloworld, version 0.17"),
    ("qemu", "mirage"): (Proof.TRIED, "with a unikernel of Solo5's own tests"),
    ("qemu", "mewz"): (Proof.COMPARED, "no kernel of Mewz is here"),
    ("qemu", "hermit"): (Proof.COMPARED, "no loader of Hermit's is here"),
    ("firecracker", "unikraft"): (Proof.COMPARED, _KVM),
    ("firecracker", "linux"): (Proof.COMPARED, f"{_KVM}; the monitor itself (1.17) takes the plan, up to the kernel"),
    ("cloud-hypervisor", "linux"): (
        Proof.COMPARED,
        f"{_KVM}; the monitor itself (54.0) takes the plan, up to the kernel",
    ),
    ("hvt", "rumprun"): (Proof.COMPARED, _KVM),
    ("hvt", "mirage"): (Proof.TRIED, "by hand, one unikernel of Solo5's own tests under a real KVM"),
    ("spt", "rumprun"): (
        Proof.COMPARED,
        "no unikernel of Rumprun is here; the monitor itself is tried with Solo5's tests",
    ),
    ("spt", "mirage"): (Proof.TRIED, "with the unikernels of Solo5's own tests"),
    ("uml", "linux"): (Proof.BOOTED, "initrd and block, confined; no network"),
    ("hyperlight-unikraft", "unikraft"): (Proof.NOT_OFFERED, "known, so that images that name it are told so"),
}


def pairs() -> Iterator[Pair]:
    """Every pair that an image may name, in the order of the table of names."""
    for monitor, guests in PAIRS.items():
        for guest in guests:
            proof, remark = _PROOFS[(monitor, guest)]
            yield Pair(monitor, guest, proof, remark)
