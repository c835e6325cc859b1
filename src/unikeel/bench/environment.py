"""What the figures were measured on. Each entry is found out without changing the host; what cannot be found is null."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from unikeel.bench.rows import Json
from unikeel.errors import UnikeelError
from unikeel.version import VERSION

if TYPE_CHECKING:
    from unikeel.engine.services import Services

_SECONDS = 20.0


def describe(services: Services) -> dict[str, Json]:
    """The environment of a run on this state root; probes the accelerator if no start has done so."""
    return {
        "unikeel": VERSION,
        "commit": commit(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu": cpu(read("/proc/cpuinfo")),
        "cores": os.cpu_count(),
        "memory_mib": memory_mib(read("/proc/meminfo")),
        "load": load(),
        "python": sys.version.split()[0],
        "interpreter": sys.executable,
        "qemu": first_line(["qemu-system-" + os.uname().machine, "--version"]),
        "runtime": first_line([_runtime(services) or "crun", "--version"]),
        "accelerator": _accelerator(services),
        "state_root": _file_system(services.layout.root),
    }


def read(path: str) -> str:
    """A small text file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def cpu(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in ("model name", "Model"):
            return value.strip()
    return None


def memory_mib(meminfo: str) -> int | None:
    """The host's memory in the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def load() -> list[Json]:
    """The load averages of now."""
    return [round(value, 2) for value in os.getloadavg()]


def first_line(argv: list[str]) -> str | None:
    """The first line that a program prints; None if it cannot be run."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    return lines[0].strip() if lines and done.returncode == 0 else None


def output(argv: list[str]) -> str:
    """Everything that a program prints; empty if it cannot be run or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


@functools.cache
def commit() -> str | None:
    """The commit of the source tree that this runs from, with ``+`` if files differ from it; None outside of a tree."""
    here = os.path.dirname(os.path.abspath(__file__))
    found = first_line(["git", "-C", here, "rev-parse", "HEAD"])
    changed = found and first_line(["git", "-C", here, "status", "--porcelain", "--untracked-files=no"])
    return f"{found}+" if changed else found


def runtime_name(services: Services) -> str | None:
    """The OCI runtime's name; None if there is none."""
    path = _runtime(services)
    return os.path.basename(path) if path else None


def _runtime(services: Services) -> str:
    from unikeel.sandbox.runtime import find_runtime

    try:
        return find_runtime(services.config.sandbox_runtime).path
    except UnikeelError:
        return ""


def _accelerator(services: Services) -> dict[str, Json]:
    try:
        chosen = services.acceleration(services.facts("qemu"), "")
    except UnikeelError as error:
        return {"accel": None, "reason": str(error), "kvm_ms": None, "tcg_ms": None}
    return {"accel": chosen.accel, "reason": chosen.reason, "kvm_ms": chosen.kvm_ms, "tcg_ms": chosen.tcg_ms}


def _file_system(root: str) -> dict[str, Json]:
    return {"file_system": file_system(read("/proc/self/mountinfo"), root), "reflink": _reflink(root)}


def file_system(mountinfo: str, path: str) -> str | None:
    """The type of the file system that holds a path, from the text of /proc/self/mountinfo."""
    best, found = -1, None
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        columns = fields.split()
        if len(columns) < 5 or not rest:
            continue
        point = columns[4].encode().decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), rest.split()[0]
    return found


def _reflink(root: str) -> bool:
    """Whether a file in the state root can be cloned."""
    from unikeel.kernel.reflink import clone_file

    paths = [os.path.join(root, name) for name in ("reflink.from", "reflink.to")]
    fds = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in paths]
    try:
        os.write(fds[0], bytes(4096))
        clone_file(fds[0], fds[1])
    except (OSError, UnikeelError):
        return False
    finally:
        for fd, path in zip(fds, paths, strict=True):
            os.close(fd)
            os.unlink(path)
    return True
