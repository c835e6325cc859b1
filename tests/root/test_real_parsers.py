"""Plans for monitors that no machine of ours can run a guest on, against the monitors themselves: each takes all that we say, and comes as far as a kernel that is none.

``UNIKEEL_FIRECRACKER`` and ``UNIKEEL_CLOUD_HYPERVISOR`` name built programs (and there must be a /dev/kvm, which need not work). What is not named is not tried: those
plans are then only compared with expectations, as docs/monitors.md says.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from engine_stages import PATIENCE
from unikeel import monitors
from unikeel.kernel.memfd import sealed_bytes
from unikeel.kernel.process import spawn
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import FIRST_FD, Attached, DiskSpec, FileRole, LaunchPlan, LaunchRequest, PlanFile
from unikeel.monitors.contract import Facts

PROGRAMS: Final = {
    name: os.environ[variable]
    for name, variable in (("firecracker", "UNIKEEL_FIRECRACKER"), ("cloud-hypervisor", "UNIKEEL_CLOUD_HYPERVISOR"))
    if os.environ.get(variable)
}
REQUEST: Final = LaunchRequest(
    name="web",
    guest=GuestConfig("linux", "firecracker", "/k"),
    args=("/urunit", "/app", "two words"),
    env=("A=1",),
    memory_mib=128,
    vcpus=2,
    machine="q35",
    accel="kvm",
    disk=DiskSpec("raw"),
    initrd=True,
    retained=True,
    extra=(
        Attached(DiskSpec("raw", id="annot_vol"), "/data"),
        Attached(DiskSpec("raw", read_only=True, id="vol0"), "/fixed"),
    ),
)
#: A word of each plan, and one that only its own parser can find wrong.
_WRONG: Final = {"firecracker": ("is_read_only", "is_read_onli"), "cloud-hypervisor": ("image_type", "image_tipe")}


def _plan(name: str, program: str, words: tuple[str, str] = ("is", "is"), console: str = "") -> LaunchPlan:
    request = REQUEST._replace(guest=REQUEST.guest._replace(monitor=name, console=console))
    plan = monitors.plan(request, Facts(program, (54, 0), (program,), ""))
    return plan._replace(
        argv=tuple(word.replace(*words) for word in plan.argv),
        config=plan.config.replace(words[0].encode(), words[1].encode()),
    )


def _said(plan: LaunchPlan, directory: Path) -> str:
    """What a monitor says that gets its plan's descriptors: sockets, its configuration, and files of nothing but zeros, the kernel, too."""
    with ExitStack() as stack:
        fds = {
            number: _descriptor(plan, file, directory / str(number), stack)
            for number, file in enumerate(plan.files, start=FIRST_FD)
        }
        said = stack.enter_context((directory / "said").open("w+b"))
        process = spawn(plan.argv, {}, {1: said.fileno(), 2: said.fileno(), **fds})
        if process.wait(PATIENCE) is None:
            process.send(signal.SIGKILL)
            process.wait()
        return (directory / "said").read_text(errors="replace")


def _descriptor(plan: LaunchPlan, file: PlanFile, path: Path, stack: ExitStack) -> int:
    if file.role is FileRole.CONFIG:
        return stack.enter_context(sealed_bytes("config", plan.config)).fileno()
    if file.role is FileRole.API:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(b"\0" + os.fsencode(path.parent)[-80:])
        listener.listen()
        return listener.fileno()
    with path.open("wb") as new:
        new.truncate(1 << 20)
    return stack.enter_context(path.open("r+b" if file.writable else "rb")).fileno()


def test_they_take_our_plans(tmp_path: Path) -> None:
    for name, program in PROGRAMS.items():
        for console in ("serial", "virtio") if monitors.monitor(name).traits.virtio_console else ("serial",):
            said = _said(_plan(name, program, console=console), tmp_path)
            assert "InvalidBzImage" in said, said
        right, wrong = _WRONG[name]
        said = _said(_plan(name, program, (right, wrong)), tmp_path)
        assert wrong in said, said
        assert "InvalidBzImage" not in said
