"""virtiofsd, the server of a directory that a guest has by virtiofs: its command line, and the sandbox that it runs in.

Its sandbox is a monitor's but for what serving files as their owners takes: it runs as root with the capabilities for that and none beside, in namespaces, a read-only root
and a seccomp filter of its own, and locks itself (``sandbox=chroot``) into the directory, which it has as a descriptor of a detached mount: nosuid, nodev, noexec. Of the
guest it has the memory, by QEMU's socket. When QEMU ends, it ends. Options that both the server of QEMU (up to 7.2) and its successor in Rust know: virtiofsd(1).
"""

from __future__ import annotations

import os

from unikeel.errors import Unavailable
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.model.plan import FIRST_FD, ExitRule, LaunchPlan
from unikeel.sandbox.spec import SandboxRequest
from unikeel.values import NamedTuple

#: Where distributions have it; it is in no directory of programs.
DIRECTORIES: Final = (
    "/usr/libexec",
    "/usr/lib/qemu",
    "/usr/libexec/qemu",
    "/usr/local/libexec",
    "/usr/local/bin",
    "/usr/bin",
)
_NAME: Final = "virtiofsd"
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_HINT: Final = "install virtiofsd (Debian: the package virtiofsd, up to Debian 12 qemu-system-common), or set monitor.virtiofsd_path"
_CAPABILITIES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SETGID",
    "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
#: What serving files takes beyond what monitors may do.
_CALLS: Final = (
    "chroot", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr",
    "lgetxattr", "linkat", "listxattr", "llistxattr", "lremovexattr", "lsetxattr", "mkdir", "mkdirat", "mknodat", "name_to_handle_at",
    "open_by_handle_at", "openat2", "removexattr", "rename", "renameat", "renameat2", "setfsgid", "setfsuid", "setpgid", "setregid",
    "setreuid", "setrlimit", "setxattr", "symlinkat", "syncfs", "truncate", "unshare", "utimensat",
)  # fmt: skip
#: Bytes of memory that one may use; most of what it holds is what is cached of its files, which can be dropped.
_MEMORY: Final = 192 << 20
#: The most files that one may have open: one for each that its guest knows of.
FILES: Final = 1 << 19


class Server(NamedTuple):
    """One file server: its sandbox's name, its bundle's root, its cgroup, which is beside the monitor's."""

    ident: str
    root: str
    cgroup: str
    #: The most open files that we may give it.
    files: int
    #: The guest's, in MiB: what the server is the first to touch of it, as when it reads into it, the kernel counts as the server's.
    memory_mib: int


def find(path: str) -> str:
    """The program. :param path: from the configuration, or empty. :raise Unavailable: it is not there."""
    found = path if path and os.access(path, os.X_OK) else "" if path else find_program(_NAME, DIRECTORIES)
    if not found:
        raise Unavailable(f"{path or _NAME} is not installed", _HINT)
    return found


def is_there(path: str) -> bool:
    """Whether :func:`find` finds it."""
    try:
        find(path)
    except Unavailable:
        return False
    return True


def plan(program: str) -> LaunchPlan:
    """What to launch: descriptor 3 is the listening socket, 4 the directory."""
    directory = f"/proc/self/fd/{FIRST_FD + 1}/."  # the dot: a link would be no directory to it
    argv = (
        program, f"--fd={FIRST_FD}", "-o", f"source={directory}", "-o", "sandbox=chroot", "-o", "cache=auto", "-o", "announce_submounts",
        "--rlimit-nofile=0",
    )  # fmt: skip
    binds = (program, *(path for path in _LIBRARIES if os.path.exists(path)))
    return LaunchPlan(argv, (), (), (), 0, binds, ExitRule.SAME, powerdown=False, syscalls=_CALLS)


def sandbox(server: Server, plan: LaunchPlan) -> SandboxRequest:
    """The sandbox that it runs in."""
    return SandboxRequest(
        ident=server.ident,
        plan=plan,
        root=server.root,
        cgroup=server.cgroup,
        uid=0,
        vcpus=1,
        allowance=_MEMORY + (server.memory_mib << 20),
        capabilities=_CAPABILITIES,
        files=min(FILES, server.files),
    )
