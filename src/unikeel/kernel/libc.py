"""System calls and C library functions that Python's ``os`` does not offer, by ctypes.

ctypes costs 3 to 5 ms of a start, so it is imported when the first call is made. System call numbers from 424 on are
the same on every architecture that Linux runs on (the kernel's unified table), so no table per machine is needed.
"""

from __future__ import annotations

import errno
import os

from unikeel.errors import Unavailable
from unikeel.lean import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

PIDFD_SEND_SIGNAL: Final = 424
OPEN_TREE: Final = 428
MOVE_MOUNT: Final = 429
FSOPEN: Final = 430
FSCONFIG: Final = 431
FSMOUNT: Final = 432
CLOSE_RANGE: Final = 436
OPENAT2: Final = 437
MOUNT_SETATTR: Final = 442

_NAMES: Final = {
    PIDFD_SEND_SIGNAL: "pidfd_send_signal (Linux 5.1)",
    OPEN_TREE: "open_tree (Linux 5.2)",
    MOVE_MOUNT: "move_mount (Linux 5.2)",
    FSOPEN: "fsopen (Linux 5.2)",
    FSCONFIG: "fsconfig (Linux 5.2)",
    FSMOUNT: "fsmount (Linux 5.2)",
    CLOSE_RANGE: "close_range (Linux 5.9)",
    OPENAT2: "openat2 (Linux 5.6)",
    MOUNT_SETATTR: "mount_setattr (Linux 5.12)",
}

_library: ctypes.CDLL | None = None

#: An argument of a system call: a number, a byte string (its address is passed; NUL-terminated), a buffer, or NULL.
Argument = int | bytes | bytearray | None


def library() -> ctypes.CDLL:
    """The C library of this process, with errno kept per call."""
    global _library  # noqa: PLW0603 - the one cache of this module
    if _library is None:
        import ctypes

        _library = ctypes.CDLL(None, use_errno=True)
        _library.syscall.restype = ctypes.c_long
    return _library


def fail(what: str) -> OSError:
    """The error of the last failed C call; ``what`` says what was tried and on which input."""
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)} ({what})")


def syscall(number: int, what: str, *arguments: Argument) -> int:
    """Issue a system call, repeated while a signal interrupts it.

    :param what: what is tried, on which input; it becomes part of the error.
    :raise Unavailable: the kernel does not have the call. :raise OSError: it failed otherwise.
    """
    import ctypes

    call = library().syscall
    converted = [_convert(argument) for argument in arguments]
    while True:
        result: int = call(ctypes.c_long(number), *converted)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise Unavailable(f"the kernel lacks {_NAMES.get(number, str(number))}", "use Linux 5.15 or later")
        if code != errno.EINTR:
            raise fail(what)


def _convert(argument: Argument) -> object:
    import ctypes

    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    if isinstance(argument, bytearray):
        return (ctypes.c_char * len(argument)).from_buffer(argument)
    return ctypes.c_long(argument)
