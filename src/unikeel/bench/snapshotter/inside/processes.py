"""What a daemon has used so far: its processor time and what it wrote, with all processes below it, and what a pool's metadata device was written."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from typing import Final

from unikeel.errors import Unavailable
from unikeel.values import NamedTuple

_TICK: Final = 1000 / os.sysconf("SC_CLK_TCK")
_CREDENTIALS: Final = struct.Struct("=iII")
_SECTOR: Final = 512
_SECONDS: Final = 60.0


class Used(NamedTuple):
    """Milliseconds of processor time, with that of programs that were run and have ended; bytes that were written to files."""

    cpu_ms: float
    written: int

    def since(self, before: Used) -> Used:
        """What came to it."""
        return Used(self.cpu_ms - before.cpu_ms, self.written - before.written)


def listener(address: str) -> int:
    """The process that listens on a unix socket. :raise Unavailable: nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError as error:
            raise Unavailable(f"nobody listens on {address}: {error.strerror}") from None
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[0])


def used(pid: int) -> Used:
    """By a process and all below it that live. What those wrote that have ended is not in it (dmsetup writes nothing)."""
    total = Used(_cpu(_read(f"/proc/{pid}/stat")), _written(_read(f"/proc/{pid}/io")))
    for child in _children(pid):
        below = used(child)
        total = Used(total.cpu_ms + below.cpu_ms, total.written + below.written)
    return total


def _cpu(stat: str) -> float:
    """Milliseconds in the text of /proc/PID/stat: utime, stime and those of children that ended, in ticks (proc(5), fields 14 to 17)."""
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) * _TICK


def _written(io: str) -> int:
    """Bytes that a process dirtied or wrote, in the text of /proc/PID/io."""
    return next((int(line.split()[1]) for line in io.splitlines() if line.startswith("write_bytes:")), 0)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except FileNotFoundError:
        pass
    return found


def metadata_device(pool: str) -> str:
    """The number (``7:0``) of a thin pool's metadata device. :raise Unavailable: there is no such pool."""
    done = subprocess.run(["dmsetup", "table", pool], capture_output=True, text=True, timeout=_SECONDS, check=False)
    words = done.stdout.split()
    if done.returncode or len(words) < 4 or words[2] != "thin-pool":
        raise Unavailable(f"{pool} is no thin pool: {done.stderr.strip() or done.stdout.strip()}")
    return words[3]


def device_written(number: str) -> int:
    """Bytes written to a block device so far (Documentation/block/stat.rst of the kernel: the seventh field, in sectors)."""
    return int(_read(f"/sys/dev/block/{number}/stat").split()[6]) * _SECTOR


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
