"""User namespaces as descriptors, for id-mapped mounts (:func:`unikeel.kernel.mounts.set_attributes`).

A user namespace is born with a process. The one made here runs nothing of ours: it shares our memory only until it has called
``_exit``, on a stack of its own, and we are stopped meanwhile (CLONE_VM | CLONE_VFORK); the maps are then written to
the zombie, whose credentials the kernel keeps until it is reaped. So neither fork of a large process nor an
exec is paid: 0.1 ms. Needs CAP_SETUID and CAP_SETGID (to map ids that are not our own). Sources: clone(2), user_namespaces(7).
"""

from __future__ import annotations

import os

from unikeel.errors import Unavailable
from unikeel.kernel import libc
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, signal

_CLONE_VM: Final = 0x100
_CLONE_VFORK: Final = 0x4000
_CLONE_NEWUSER: Final = 0x10000000
_WALL: Final = 0x40000000
_STACK_BYTES: Final = 64 * 1024
_NOBODY: Final = 65534


def single_mapping(inside: tuple[int, int], outside: tuple[int, int]) -> OwnedFd:
    """A user namespace in which exactly one user and one group exist.

    In an id-mapped mount, a file that belongs to user and group ``inside`` on disk shows as ``outside``; all others as
    nobody's, which nobody can change.

    :param inside: uid and gid as stored in the file system. :param outside: uid and gid of the host.
    :raise Unavailable: the host has no user namespaces, or no more of them.
    """
    return _mapping(f"{inside[0]} {outside[0]} 1\n", f"{inside[1]} {outside[1]} 1\n")


def root_mapping(uid: int) -> OwnedFd:
    """A user namespace for a file system that ``uid`` (of the host, from 65536 on) is to use as root would: what is root's is that one's, and what root makes is nobody's.

    :raise Unavailable: as of :func:`single_mapping`.
    """
    text = f"0 {uid} 1\n1 1 {_NOBODY - 1}\n{_NOBODY} 0 1\n"
    return _mapping(text, text)


def _mapping(users: str, groups: str) -> OwnedFd:
    try:
        pid = _stillborn()
    except OSError as error:
        raise Unavailable(f"no user namespace: {error.strerror}", "see user.max_user_namespaces (sysctl)") from error
    try:
        _write(f"/proc/{pid}/uid_map", users)
        _write(f"/proc/{pid}/gid_map", groups)
        return OwnedFd(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise Unavailable(f"cannot map users ({'; '.join(users.splitlines())}): {error.strerror}") from error
    finally:
        os.waitpid(pid, _WALL)


def _stillborn() -> int:
    """A child in a new user namespace that has exited and is not reaped; it sends no SIGCHLD and plain waits overlook it."""
    import ctypes

    library = libc.library()
    stack = ctypes.create_string_buffer(_STACK_BYTES)
    top = ctypes.addressof(stack) + _STACK_BYTES & ~0xF
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # the function it runs is libc's _exit, which touches no memory
        pid: int = library.clone(
            ctypes.cast(library._exit, ctypes.c_void_p),  # noqa: SLF001 - a C function's name
            ctypes.c_void_p(top),
            ctypes.c_int(_CLONE_VM | _CLONE_VFORK | _CLONE_NEWUSER),
            ctypes.c_void_p(0),
        )
        error = libc.fail("making a user namespace") if pid < 0 else None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if error is not None:
        raise error
    return pid


def _write(path: str, text: str) -> None:
    with OwnedFd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as file:
        os.write(file.fileno(), text.encode())
