"""What the kernel tells of processes that need not be our children."""

from __future__ import annotations

import fcntl
import os
import select
import struct


def read_pid(path: str) -> int:
    """The number in a pid file; 0 if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def open_server(pid_file: str, sandbox: str) -> int:
    """A pidfd of the process in a sandbox of this name, which is in its cgroup's; -1: it has ended."""
    pid = read_pid(pid_file)
    try:
        pidfd = os.pidfd_open(pid) if pid > 1 else -1
    except ProcessLookupError:
        return -1
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            is_right = sandbox in file.read()
    except OSError:
        is_right = False
    if pidfd >= 0 and not is_right:
        os.close(pidfd)
        return -1
    return pidfd


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks since boot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def has_ended(pidfd: int) -> bool:
    """Whether its process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def exit_by_pidfd(pidfd: int) -> int | None:
    """The wait status of a process that is not our child; ``None`` until its parent has reaped it.

    :raise OSError: the kernel does not tell (before Linux 6.15, PIDFD_GET_INFO).
    """
    # struct pidfd_info, linux/pidfd.h: u64 mask, u64 cgroupid, 11 x u32, s32 exit_code; 64 bytes in its first version.
    request, exit_flag = 0xC040FF0B, 1 << 3
    info = bytearray(struct.pack("<Q56x", exit_flag))
    fcntl.ioctl(pidfd, request, info)
    mask = int(struct.unpack_from("<Q", info)[0])
    return int(struct.unpack_from("<i", info, 60)[0]) if mask & exit_flag else None


def remove_stand_in(ident: str) -> None:
    """What crun made for a container where a hybrid host's cgroup2 mount was hidden from it: a directory with a plain file."""
    root = "/sys/fs/cgroup/unified"
    place = f"{root}/unikeel-{ident}"
    if os.path.exists(f"{root}/cgroup.procs") or not os.path.isdir(place):
        return
    try:
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)
    except OSError:
        return
