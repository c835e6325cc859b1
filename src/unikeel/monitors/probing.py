"""What is true of a monitor on this host: where its program is, and which version it says that it is.

The answer is kept in ``CACHE/monitor-NAME.json`` for as long as path, size and time of change of the program are the same, since asking costs the start of
a process. The file is only a memory: if it is damaged or cannot be written, the program is asked again.
"""

from __future__ import annotations

import os
import re

from unikeel.errors import Unavailable
from unikeel.lean import Final
from unikeel.monitors.contract import Facts
from unikeel.monitors.memory import read_memory, write_memory
from unikeel.values import NamedTuple

#: Seconds that a program may take to say its version: on a cold disk, much of it is read for that.
VERSION_DEADLINE: Final = 20.0
_OUTPUT_LIMIT: Final = 4096
_SEARCH: Final = "/usr/local/bin:/usr/bin:/bin"
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_VERSION: Final = re.compile(r"(?<![\w.])v?(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?")


class Wanted(NamedTuple):
    """A monitor's program. ``setting`` is the key of the configuration that names its path, ``mend`` how to get it."""

    name: str
    program: str
    least: tuple[int, ...]
    setting: str
    mend: str


def program_facts(wanted: Wanted, path: str, cache: str) -> Facts:
    """A monitor on this host; the other parameters as of :meth:`unikeel.monitors.contract.Monitor.probe`.

    :raises Unavailable: it is not installed, does not say its version, or is too old.
    """
    program = _program(wanted, path)
    identity = _identify(program, wanted)
    memory = f"monitor-{wanted.name}.json"
    version = _remembered(identity, cache, memory)
    if version is None:
        version = parse_version(_said(program), program, wanted)
        if cache:
            write_memory(cache, memory, {"identity": identity, "version": list(version)})
    if version < wanted.least:
        raise Unavailable(
            f"{program} is version {'.'.join(map(str, version))}, too old: {'.'.join(map(str, wanted.least))} is the least",
            wanted.mend,
        )
    return Facts(program, version, _binds(program), identity)


def parse_version(output: str, program: str, wanted: Wanted) -> tuple[int, ...]:
    """The first version in what a program says. :raises Unavailable: there is none."""
    found = _VERSION.search(output)
    if found is None:
        raise Unavailable(f"{program} does not say its version: {output.strip()[:80]!r}", wanted.mend)
    return tuple(int(part) for part in found.groups() if part is not None)


def _program(wanted: Wanted, path: str) -> str:
    if path:
        if not path.startswith("/"):
            raise Unavailable(f"the path of {wanted.program} must be absolute, not {path!r}", f"set {wanted.setting}")
        return path
    for directory in os.environ.get("PATH", _SEARCH).split(":"):
        candidate = os.path.join(directory, wanted.program)
        if directory.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise Unavailable(f"the monitor {wanted.program} is not installed", wanted.mend)


def _identify(program: str, wanted: Wanted) -> str:
    try:
        status = os.stat(program)
    except OSError as error:
        raise Unavailable(f"{program} cannot be used: {error.strerror}", wanted.mend) from None
    return f"{program} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _remembered(identity: str, cache: str, name: str) -> tuple[int, ...] | None:
    found = read_memory(cache, name) if cache else {}
    version = found.get("version")
    if found.get("identity") != identity or not isinstance(version, list) or len(version) < 2:
        return None
    return tuple(version) if all(isinstance(part, int) for part in version) else None


def _said(program: str) -> str:
    """What the program says of its version on either stream, with nothing of our environment and a limit of time and size."""
    import signal

    from unikeel.kernel.process import spawn

    output = os.memfd_create("version", os.MFD_CLOEXEC)
    try:
        process = spawn([program, "--version"], {"LC_ALL": "C"}, {1: output, 2: output})
        if process.wait(VERSION_DEADLINE) is None:
            process.send(signal.SIGKILL)
            process.wait()
            raise Unavailable(f"{program} did not say its version in {VERSION_DEADLINE:.0f} seconds")
        return os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace")
    finally:
        os.close(output)


def _binds(program: str) -> tuple[str, ...]:
    return (program, *(path for path in _LIBRARIES if os.path.exists(path)))
