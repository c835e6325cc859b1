"""The processes of a native lab, as this host sees them."""

from __future__ import annotations

import os
import select
import signal
from typing import Final, NamedTuple

from lab.native import Native
from lab.paths import PREFIX
from lab_support.waiting import PATIENCE

_MONITOR: Final = "qemu-system"


class Process(NamedTuple):
    """A process: its number here and inside, its parent's number here, what it runs."""

    pid: int
    inside: int
    parent: int
    state: str
    argv: tuple[str, ...]
    name: str

    @property
    def is_monitor(self) -> bool:
        """Whether it runs a guest."""
        return bool(self.argv) and os.path.basename(self.argv[0]).startswith(_MONITOR)


def processes(lab: Native) -> list[Process]:
    """All processes of a lab, those in its sandboxes and those that ended and are not reaped among them."""
    depth = len(_status(lab.init_pid)["NSpid"].split())
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if _is_in(int(name), lab.identity):
                found.append(_read(int(name), depth))
        except (OSError, KeyError, IndexError):
            continue  # it has just ended
    return found


def _is_in(pid: int, identity: str) -> bool:
    """Whether a process is below a lab's cgroup, in any hierarchy."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        return f"{PREFIX}{identity}" in file.read()


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def _read(pid: int, depth: int) -> Process:
    """:param depth: how many process namespaces down the lab's is."""
    fields = _status(pid)
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        argv = tuple(word.decode(errors="replace") for word in file.read().split(b"\0")[:-1])
    return Process(
        pid, int(fields["NSpid"].split()[depth - 1]), int(fields["PPid"]), fields["State"][0], argv, fields["Name"]
    )


def kill_and_wait(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that is not our child, and wait until it is gone. One that was stopped goes on first, if the signal needs that."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
        if not select.select([descriptor], [], [], PATIENCE)[0]:
            raise AssertionError(f"process {pid} lives on, {PATIENCE} s after signal {number}")
    finally:
        os.close(descriptor)


def pss(pid: int) -> int:
    """A process's proportional share of memory, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(found)
