"""The cgroups of a process, as this host sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator


def memory_limit(pid: int) -> int:
    """The limit of a process's own cgroup, in bytes; a huge number for none."""
    for directory, unified in _directories(pid, "memory"):
        path = os.path.join(directory, "memory.max" if unified else "memory.limit_in_bytes")
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except FileNotFoundError:
            continue
        return 1 << 62 if text == "max" else int(text)
    raise AssertionError(f"process {pid} is in no cgroup that limits memory")


def below(top: str) -> list[str]:
    """Every cgroup below one, in every hierarchy. :param top: its name, as in ``/proc/PID/cgroup``."""
    found = []
    for mountpoint, _, _ in _hierarchies():
        for directory, names, _ in os.walk(mountpoint + top):
            found += [os.path.join(directory, name) for name in names]
    return sorted(found)


def _directories(pid: int, controller: str) -> Iterator[tuple[str, bool]]:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for mountpoint, kind, options in _hierarchies():
        for _, controllers, path in lines:
            if kind == "cgroup2" and not controllers:
                yield mountpoint + path, True
            elif kind == "cgroup" and controller in controllers.split(",") and controller in options:
                yield mountpoint + path, False


def _hierarchies() -> Iterator[tuple[str, str, list[str]]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.rstrip("\n").partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                yield left.split(" ")[4], kind, options.split(",")
