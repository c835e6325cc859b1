"""What the kernel says of a pool, as our errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.errors import FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted, Unavailable
from unikeel.lean import Final

#: EOPNOTSUPP is a pool's answer to every message while it is read-only, as it is without space for metadata.
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def pool_errors(pool: str, doing: str) -> Iterator[None]:
    """Turn what the system answers into our errors; ``doing`` completes "cannot …"."""
    try:
        yield
    except NotFound as error:  # a device that our own record tells of
        raise Unavailable(
            f"cannot {doing}: {error.message}", f"see `unikeel pool status {pool}`: the pool or a device of it is gone"
        ) from error
    except OSError as error:
        text = f"cannot {doing}: {os.strerror(error.errno or 0)}"
        status = f"see `unikeel pool status {pool}`"
        if error.errno in _NO_SPACE:
            raise ResourceExhausted(
                f"{text}: the pool {pool!r} is full or read-only", f"`unikeel pool grow {pool}`, and {status}"
            ) from error
        if error.errno == errno.EBUSY:
            raise FailedPrecondition(f"{text}: a device of the pool {pool!r} is in use", status) from error
        if error.errno in _REFUSED:
            raise PermissionDenied(text, "" if os.geteuid() == 0 else "run as root") from error
        raise Unavailable(text, status) from error
