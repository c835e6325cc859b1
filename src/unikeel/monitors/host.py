"""What is true of QEMU on this host, found out once and kept in a small file.

Asking ``qemu-system-x86_64 --version`` takes over 20 ms, so a warm start reads the answer from ``CACHE/monitors.json`` as long as path, size and
time of change of the program are the same. The file is only a memory: if it is damaged or cannot be written, the program is asked again.
"""

from __future__ import annotations

import os

from unikeel.errors import Unavailable
from unikeel.lean import Final
from unikeel.monitors.contract import Facts
from unikeel.monitors.memory import read_memory, write_memory
from unikeel.monitors.qemu import LEAST_VERSION

#: Seconds that a program may take to say its version: on a cold disk, much of it is read for that.
VERSION_DEADLINE: Final = 20.0
_OUTPUT_LIMIT: Final = 4096
_SEARCH: Final = "/usr/local/bin:/usr/bin:/bin"
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_FIRMWARE: Final = ("/usr/share/qemu", "/usr/share/seabios")
_PACKAGE: Final = "install the package qemu-system-x86, version 7.2 or later"


def qemu_facts(path: str, cache: str) -> Facts:
    """QEMU on this host; see :meth:`unikeel.monitors.contract.Monitor.probe` for the parameters.

    :raises Unavailable: it is not installed, does not say its version, or is too old.
    """
    program = _program(path)
    identity = identify(program)
    version = _remembered(identity, cache)
    if version is None:
        version = parse_version(_say_version(program), program)
        if cache:
            write_memory(cache, "monitors.json", {"qemu": {"identity": identity, "version": list(version)}})
    if version[:2] < LEAST_VERSION:
        found = ".".join(map(str, version))
        raise Unavailable(f"{program} is version {found}, too old: 7.2 is the least", _PACKAGE)
    return Facts(program, version, _binds(program), identity)


def identify(program: str) -> str:
    """Path, size and time of change of a program. :raises Unavailable: it is not there."""
    try:
        status = os.stat(program)
    except OSError as error:
        raise Unavailable(f"{program} cannot be used: {error.strerror}", _PACKAGE) from None
    return f"{program} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def parse_version(output: str, program: str) -> tuple[int, ...]:
    """The version in ``QEMU emulator version 7.2.22 (Debian …)``. :raises Unavailable: there is none."""
    words = output.split()
    number = words[words.index("version") + 1] if "version" in words[:-1] else ""
    parts = tuple(int(part) for part in number.split(".") if part.isascii() and part.isdigit() and len(part) < 6)
    if len(parts) < 2:
        raise Unavailable(f"{program} does not say its version: {output.strip()[:80]!r}", _PACKAGE)
    return parts


def _program(path: str) -> str:
    if path:
        if not path.startswith("/"):
            raise Unavailable(f"the path of QEMU must be absolute, not {path!r}", "set monitor.qemu_path")
        return path
    name = f"qemu-system-{os.uname().machine}"
    for directory in os.environ.get("PATH", _SEARCH).split(":"):
        candidate = os.path.join(directory, name)
        if directory.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise Unavailable(f"the monitor {name} is not installed", _PACKAGE)


def _remembered(identity: str, cache: str) -> tuple[int, ...] | None:
    found = read_memory(cache, "monitors.json").get("qemu") if cache else None
    if not isinstance(found, dict) or found.get("identity") != identity:
        return None
    version = found.get("version")
    if not isinstance(version, list) or len(version) < 2 or not all(isinstance(part, int) for part in version):
        return None
    return tuple(version)


def _say_version(program: str) -> str:
    """The program's own words, with nothing of our environment and a limit of time and size."""
    import signal

    from unikeel.kernel.process import spawn

    output = os.memfd_create("version", os.MFD_CLOEXEC)
    try:
        process = spawn([program, "--version"], {"LC_ALL": "C"}, {1: output})
        if process.wait(VERSION_DEADLINE) is None:
            process.send(signal.SIGKILL)
            process.wait()
            raise Unavailable(f"{program} did not say its version in {VERSION_DEADLINE:.0f} seconds")
        return os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace")
    finally:
        os.close(output)


def _binds(program: str) -> tuple[str, ...]:
    """The program, the host's libraries and the firmware; those beside it if it is installed elsewhere than under /usr."""
    prefix = os.path.dirname(os.path.dirname(program))
    beside = () if prefix in ("/usr", "/") else (f"{prefix}/lib", f"{prefix}/share/qemu")
    return tuple(
        dict.fromkeys((program, *(path for path in (*_LIBRARIES, *_FIRMWARE, *beside) if os.path.exists(path))))
    )
