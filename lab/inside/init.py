"""The first process of a native lab: builds its world, then only waits, and with it everything in there ends.

Started by ``unshare --mount --pid --ipc --uts --net --fork``, with one argument, a JSON object: see :func:`main`. Says one line on the
descriptor ``status``: ``ready PID`` (its own, as the host sees it) or what went wrong. Ends when the pipe ``lifeline`` has no writer any more, whatever
happened to that one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

_NEWCGROUP = 0x02000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = 155  # x86-64, as the whole lab
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). The words are those of the manual page."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind, data)]
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """A bind mount, of a directory or a file."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    mount(source, target, flags=_BIND)
    if read_only:
        mount("", target, flags=_BIND | _REMOUNT | _RDONLY)


def join_cgroups(name: str) -> list[tuple[str, str, list[str]]]:
    """A cgroup of this name in every hierarchy of the host, with this process in it; what to mount: kind, options, directory's name."""
    found = []
    for mountpoint, kind, options in host_cgroups():
        path = os.path.join(mountpoint, name)
        if kind == "cgroup2":
            enable_controllers(mountpoint)
        os.makedirs(path, exist_ok=True)
        if "cpuset" in options:
            for file in ("cpuset.cpus", "cpuset.mems"):
                copy(os.path.join(mountpoint, file), os.path.join(path, file))
        write(os.path.join(path, "cgroup.procs"), "0")
        found.append((mountpoint, kind, options))
    return found


def host_cgroups() -> Iterator[tuple[str, str, list[str]]]:
    """The cgroup hierarchies that this process sees mounted."""
    kept = (
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
    )
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" "), "", ""][:3]
        if kind in ("cgroup", "cgroup2"):
            words = [word for word in options.split(",") if word in kept or word.startswith("name=")]
            yield left.split(" ")[4], kind, words if kind == "cgroup" else []


def enable_controllers(mountpoint: str) -> None:
    """What a unified hierarchy offers, for its children."""
    try:
        with open(os.path.join(mountpoint, "cgroup.controllers"), encoding="ascii") as file:
            controllers = file.read().split()
        for controller in controllers:
            write(os.path.join(mountpoint, "cgroup.subtree_control"), f"+{controller}")
    except OSError:
        pass  # then the lab has what it has


def mount_cgroups(hierarchies: list[tuple[str, str, list[str]]], root: str) -> None:
    """The same hierarchies inside, as the host has them, each beginning at this lab's own cgroup."""
    top = os.path.join(root, "sys/fs/cgroup")
    if [kind for _, kind, _ in hierarchies] == ["cgroup2"]:
        mount("cgroup2", top, "cgroup2", _NOSUID | _NODEV | _NOEXEC)
        return
    mount("tmpfs", top, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "mode=755")
    for mountpoint, kind, options in hierarchies:
        target = os.path.join(top, os.path.basename(mountpoint))
        os.makedirs(target)
        mount(kind, target, kind, _NOSUID | _NODEV | _NOEXEC, ",".join(options))


def build_root(world: dict[str, Any]) -> str:
    """Everything below the new root; its path."""
    scratch = world["scratch"]
    root = os.path.join(scratch, "root")
    for name in ("root", "upper", "work"):
        os.makedirs(os.path.join(scratch, name), exist_ok=True)
    mount("", "/", flags=_REC | _PRIVATE)
    options = f"lowerdir={world['lower']},upperdir={scratch}/upper,workdir={scratch}/work"
    mount("overlay", root, "overlay", 0, options)
    for name in ("var/lib/containerd", "var/lib/unikeel", "var/tmp", "tmp", "var/log"):
        source = os.path.join(scratch, "real", name)
        os.makedirs(source, exist_ok=True)
        bind(source, os.path.join(root, name), read_only=False)
    os.chmod(os.path.join(root, "tmp"), 0o1777)  # noqa: S103 - it is /tmp
    mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    mount("sysfs", f"{root}/sys", "sysfs", _NOSUID | _NODEV | _NOEXEC)
    mount("tmpfs", f"{root}/run", "tmpfs", _NOSUID | _NODEV, "mode=755")
    mount("/dev", f"{root}/dev", flags=_BIND)
    mount("devpts", f"{root}/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", _NOSUID | _NODEV, "mode=1777")  # noqa: S108
    for source, target, read_only in world["binds"]:
        bind(source, root + target, read_only=read_only)
    for target, layers in world["stacks"]:
        mount("overlay", root + target, "overlay", _RDONLY, f"lowerdir={':'.join(layers)}")
    return root


def enter(root: str) -> None:
    """The new root becomes the only one."""
    os.chdir(root)
    if _libc.syscall(_PIVOT_ROOT, b".", b"."):
        number = ctypes.get_errno()
        raise OSError(number, f"pivot_root to {root}: {os.strerror(number)}")
    if _libc.umount2(b".", _DETACH):
        raise OSError(ctypes.get_errno(), "unmounting the old root")
    os.chdir("/")


def loopback_up() -> None:
    """The network that there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def write(path: str, text: str) -> None:
    """Write a file of the kernel's."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def copy(source: str, target: str) -> None:
    """Copy a file of the kernel's."""
    with open(source, encoding="ascii") as file:
        write(target, file.read())


def wait_for_the_end(lifeline: int) -> None:
    """Reap whatever loses its parent, until the lifeline ends."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(readable, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == lifeline:
                return
            os.read(readable, 4096)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def main() -> None:
    """The argument: {lifeline, status, lower, scratch, cgroup, hostname, binds: [[source, target, read only]], stacks: [[target, layers]]}."""
    world = json.loads(sys.argv[1])
    status = world["status"]
    pid = os.readlink("/proc/self")
    try:
        hierarchies = join_cgroups(world["cgroup"])
        if _libc.unshare(_NEWCGROUP):
            raise OSError(ctypes.get_errno(), "a cgroup namespace cannot be had")
        root = build_root(world)
        mount_cgroups(hierarchies, root)
        enter(root)
        socket.sethostname(world["hostname"])
        loopback_up()
        if [kind for _, kind, _ in hierarchies] == ["cgroup2"]:
            os.makedirs("/sys/fs/cgroup/init", exist_ok=True)  # controllers need a cgroup without processes above
            write("/sys/fs/cgroup/init/cgroup.procs", "0")
    except OSError as error:
        os.write(status, f"{error.strerror or error} {error.filename or ''}".strip().encode())
        sys.exit(1)
    os.write(status, f"ready {pid}".encode())
    os.close(status)
    wait_for_the_end(world["lifeline"])


if __name__ == "__main__":
    main()
