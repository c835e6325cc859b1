"""The project's errors: one small tree, and the one table that maps it to the outside.

An error says *what* failed and for *which input* in one sentence, and in ``hint`` what to do about it. The
class says whose matter it is::

    UnikeelError
    ├── InvalidArgument       the caller asked for something that cannot be
    │   └── ConfigError       … in a configuration file
    ├── BadContent            an image, a file system or a description is damaged, hostile or over a limit (a verdict: final)
    ├── NotFound              the thing named does not exist
    ├── AlreadyExists         the name is taken
    ├── FailedPrecondition    the thing exists and is in the wrong state
    ├── PermissionDenied      the host refuses
    ├── ResourceExhausted     no space, no memory, no free number
    ├── Unavailable           a means of the host is missing or does not work (another way may)
    │   └── DeadlineExceeded  … or did not answer in time
    ├── Unimplemented         what is asked for is not offered, on purpose
    └── Internal              our own mistake

The difference between :class:`BadContent` and :class:`Unavailable` decides about falling back: only a failure of the
*means* may be answered by trying another way (design.md section 2).
"""

from __future__ import annotations

import errno
import os

from unikeel.values import NamedTuple


class UnikeelError(Exception):
    """Base of all errors that unikeel raises on purpose.

    :param message: one sentence without a final full stop: what failed, and which input it names.
    :param hint: what the user can do, or an empty string.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidArgument(UnikeelError):
    """The caller asked for something that cannot be."""


class ConfigError(InvalidArgument):
    """A configuration file is wrong; the message names the file and the key."""


class BadContent(UnikeelError):
    """Content is damaged, hostile or over a limit. A verdict: no other way is tried."""


class NotFound(UnikeelError):
    """The thing named does not exist."""


class AlreadyExists(UnikeelError):
    """The name is taken."""


class FailedPrecondition(UnikeelError):
    """The thing exists and is in the wrong state for this."""


class PermissionDenied(UnikeelError):
    """The host refuses."""


class ResourceExhausted(UnikeelError):
    """No space, no memory, no free number."""


class Unavailable(UnikeelError):
    """A means of the host is missing or does not work; another way may."""


class DeadlineExceeded(Unavailable):
    """A means did not answer in time."""


class Unimplemented(UnikeelError):
    """What is asked for is not offered, on purpose."""


class Internal(UnikeelError):
    """Our own mistake: please report it."""


class Mapping(NamedTuple):
    """How one class of errors looks from outside: a gRPC/ttrpc status code and a process's exit code."""

    rpc: int
    exit: int


#: One row per class. gRPC codes are those of the gRPC specification; exit codes follow sysexits(3) where it has a
#: fitting one, 2 for usage as most tools have it, and 124 for a time-out as timeout(1) has it.
TABLE: dict[type[UnikeelError], Mapping] = {
    UnikeelError: Mapping(rpc=2, exit=70),
    InvalidArgument: Mapping(rpc=3, exit=2),
    ConfigError: Mapping(rpc=3, exit=78),
    BadContent: Mapping(rpc=15, exit=65),
    NotFound: Mapping(rpc=5, exit=66),
    AlreadyExists: Mapping(rpc=6, exit=73),
    FailedPrecondition: Mapping(rpc=9, exit=75),
    PermissionDenied: Mapping(rpc=7, exit=77),
    ResourceExhausted: Mapping(rpc=8, exit=74),
    Unavailable: Mapping(rpc=14, exit=69),
    DeadlineExceeded: Mapping(rpc=4, exit=124),
    Unimplemented: Mapping(rpc=12, exit=64),
    Internal: Mapping(rpc=13, exit=70),
}


def mapping(error: BaseException) -> Mapping:
    """The outside codes of an error: those of the nearest class in the table; anything foreign counts as our own mistake."""
    for cls in type(error).__mro__:
        row = TABLE.get(cls)
        if row is not None:
            return row
    return TABLE[Internal]


#: gRPC's codes, read the other way; those that :data:`TABLE` has no class for are what they mean for a caller.
_OF_RPC: dict[int, type[UnikeelError]] = {
    1: Unavailable,  # cancelled
    3: InvalidArgument,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    7: PermissionDenied,
    8: ResourceExhausted,
    9: FailedPrecondition,
    10: Unavailable,  # aborted: another attempt may do
    11: InvalidArgument,  # out of range
    12: Unimplemented,
    13: Internal,
    14: Unavailable,
    15: BadContent,
    16: PermissionDenied,  # unauthenticated
}


def of_rpc(code: int, message: str, hint: str = "") -> UnikeelError:
    """The error that a gRPC or ttrpc status stands for; of a code that says nothing, the tree's root."""
    return _OF_RPC.get(code, UnikeelError)(message, hint)


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def of_system(error: OSError, hint: str = "--debug shows where") -> UnikeelError:
    """What the kernel refused, as one of ours: no room, no permission, or just what it says.

    :param hint: what to do about the rest.
    """
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    text = where + (error.strerror or str(error))
    if error.errno in _NO_ROOM:
        return ResourceExhausted(text, "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "")
    if error.errno in _REFUSED:
        return PermissionDenied(text, "" if os.geteuid() == 0 else "run as root")
    return UnikeelError(text, hint)
