"""``python -m lab_support.power``, inside the lab's virtual machine: see :func:`main`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from lab_support.power import check, disks, write_log
from lab_support.power.stores import file_system, opened
from lab_support.power.work import work

_JOURNAL = os.path.join(disks.MOUNT_POINT, "journal")


def setup(kind: str, device: str) -> None:
    """Make the state root on a new disk, and the store in it."""
    with disks.parts(device):
        disks.formatted(file_system(kind))
        with disks.mounted(file_system(kind)) as root:
            os.makedirs(root)
            with opened(kind, root):
                pass
    disks.tool("sync")


def busy(kind: str, device: str, steps: int, seed: int) -> None:
    """Make so many calls."""
    with disks.parts(device), disks.mounted(file_system(kind)) as root, opened(kind, root) as found:
        work(found.store, _JOURNAL, steps, seed, lambda _: None)


def look(kind: str, device: str) -> list[str]:
    """What is wrong after a cut."""
    with disks.parts(device), disks.mounted(file_system(kind)) as root, opened(kind, root) as found:
        return check.check(found, _JOURNAL)


def logs(kind: str, steps: int, seed: int, count: int) -> list[str]:
    """Calls on a disk whose writes are logged, then a cut at so many places of the log: what is wrong after them, each with its place."""
    problems = []
    with tempfile.TemporaryDirectory(prefix="power-", dir="/var/tmp") as scratch:
        base, replayed, log = (os.path.join(scratch, name) for name in ("base", "replayed", "log"))
        with disks.looped(base, disks.DISK_MIB) as device:
            setup(kind, device)
        disks.tool("cp", "--sparse=always", base, replayed)
        with disks.looped(base, 0) as device, disks.looped(log, disks.LOG_MIB) as log_device:
            _logged(kind, device, log_device, steps, seed)
        log_fd, target = os.open(log, os.O_RDONLY | os.O_CLOEXEC), os.open(replayed, os.O_WRONLY | os.O_CLOEXEC)
        found_entries = list(write_log.entries(log_fd))
        done = 0
        for cut in write_log.cuts(found_entries, "begin", "end", count):
            for entry in found_entries[done : cut + 1]:
                write_log.replay(log_fd, target, entry)
            done = cut + 1
            problems += [f"cut after write {cut}: {problem}" for problem in _tried(kind, replayed, scratch)]
        os.close(log_fd)
        os.close(target)
        print(f"{len(found_entries)} writes")
    return problems


def _logged(kind: str, device: str, log: str, steps: int, seed: int) -> None:
    """Calls between two marks in the log of writes."""
    with (
        disks.logged(device, log) as whole,
        disks.parts(whole),
        disks.mounted(file_system(kind)) as root,
        opened(kind, root) as found,
    ):
        disks.mark("begin")
        work(found.store, _JOURNAL, steps, seed, lambda _: None)
        disks.mark("end")


def _tried(kind: str, replayed: str, scratch: str) -> list[str]:
    """What is wrong on a copy of a disk, which is mended while it is looked at."""
    copy = os.path.join(scratch, "copy")
    disks.tool("cp", "--sparse=always", replayed, copy)
    try:
        with disks.looped(copy, 0) as device:
            argv = [sys.executable, "-m", "lab_support.power", "look", kind, device]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    finally:
        os.unlink(copy)
    return [] if done.returncode == 0 else [(done.stdout + done.stderr).strip()]


def main(argv: Sequence[str]) -> int:
    """``setup KIND DEVICE``, ``busy KIND DEVICE STEPS SEED``, ``look KIND DEVICE`` or ``logs KIND STEPS SEED CUTS``; status 1: something is wrong, and printed."""
    command, kind, *rest = argv
    problems: list[str] = []
    if command == "setup":
        setup(kind, rest[0])
    elif command == "busy":
        busy(kind, rest[0], int(rest[1]), int(rest[2]))
    elif command == "look":
        problems = look(kind, rest[0])
    else:
        problems = logs(kind, int(rest[0]), int(rest[1]), int(rest[2]))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
