"""docs/monitors.md, made from what monitors and guests say of themselves: ``python -m unikeel.monitors.reference > docs/monitors.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from unikeel.guests import guest
from unikeel.guests import offered as offered_guests
from unikeel.lean import Final
from unikeel.monitors import monitor
from unikeel.monitors import offered as offered_monitors
from unikeel.monitors.contract import Monitor
from unikeel.monitors.pairs import pairs

_HEAD: Final = """\
# Monitors and guests

<!-- Made from src/unikeel/monitors and guests by `python -m unikeel.monitors.reference`; a test compares. -->

An image names its guest and its monitor; `--monitor` (or the annotation `org.unikeel.monitor`) chooses another one that fits. `unikeel doctor` tells which monitors
are installed. Each one's program is found in PATH, or where `monitor.NAME_path` of the [configuration](configuration.md) says.

## Pairs

What the tests boot is marked so. Where no machine of ours can run a pair, its whole plan (arguments, configuration, descriptors, devices) is compared with expectations
that name their sources, in `tests/unit/test_monitor_plans.py` and `test_launch_plan.py`. `make matrix` boots each pair with each kind of root, network and volumes: [matrix.md](matrix.md).
"""
_MONITORS: Final = """
## What monitors support
"""
_GUESTS: Final = """
## What guests support

Arguments are given as urunc gives them. Variables that a guest cannot be given are left out; with `-e`, unikeel says so.
"""
_TAIL: Final = """
## User-mode Linux

`uml` runs Linux guests without any virtualization, as a process (Debian: `apt-get install user-mode-linux`). It runs the kernel of that package, never one of an image: the
kernel that the image names is not even read, its initrd or its snapshot is the root. It has one processor and, here, no network. The process is confined as every
monitor is; beyond what others may it traces its guest's processes ([decision 19](decisions/0019-user-mode-linux.md)).

## Exit status and stopping

| monitor | the guest's exit status | `unikeel stop` |
|---|---|---|
| `qemu` | by isa-debug-exit (2v+1); an orderly power-off is 0 | the power button by QMP where the guest heeds one, then `quit`, then SIGKILL |
| `cloud-hypervisor` | the monitor's | the power button by its API, then its end by it, then SIGKILL |
| `uml` | by `/proc/exitcode`; an orderly power-off is 0, a panic 134 | control, alt and delete by its management console where the guest heeds a power button, then SIGKILL |
| `hvt`, `spt` | the monitor's, which is the guest's | SIGKILL |
| `firecracker` | the monitor's | SIGKILL |
"""


def reference() -> str:
    """The text of docs/monitors.md."""
    return "".join((_HEAD, "\n", *_pairs(), _MONITORS, "\n", *_monitors(), _GUESTS, "\n", *_guests(), _TAIL))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _heading(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield "|" + "---|" * len(cells) + "\n"


def _pairs() -> Iterator[str]:
    yield from _heading("monitor", "guest", "state", "remark")
    for pair in pairs():
        yield _row(f"`{pair.monitor}`", f"`{pair.guest}`", pair.proof.value, pair.remark)


def _words(names: Sequence[str], none: str = "none") -> str:
    return ", ".join(f"`{name}`" for name in names) or none


def _kernel(found: Monitor) -> str:
    return "the image's" if found.traits.kernel else "its own"


def _monitors() -> Iterator[str]:
    yield from _heading(
        "monitor",
        "processors",
        "disks",
        "networks",
        "shared directories",
        "kernel",
        "virtio console",
        "tasks of containerd",
    )
    for name in offered_monitors():
        found = monitor(name)
        traits = found.traits
        yield _row(
            f"`{name}`",
            _words(traits.accels, "as any process"),
            _words(traits.disks),
            _words(traits.networks),
            _words(traits.shared),
            _kernel(found),
            "where asked for" if traits.virtio_console else "no",
            "started by Create, halted" if traits.halts else "started by Start",
        )


def _guests() -> Iterator[str]:
    yield from _heading("guest", "arguments", "variables", "block device", "initrd", "shared root", "told its address")
    for name in offered_guests():
        found = guest(name)
        block = _words(found.block.file_systems, "yes") if found.block.supported else "no"
        yield _row(
            f"`{name}`",
            _yes(found.arguments),
            _yes(found.environment),
            block,
            _yes(found.initrd),
            _words(found.shared, "no"),
            _yes(found.addressed),
        )


def _yes(value: bool) -> str:  # noqa: FBT001 - a word for a truth
    return "yes" if value else "no"


if __name__ == "__main__":
    sys.stdout.write(reference())
