"""One process serves the snapshots of a state root: it holds a lock, and a second one is refused.

The lock is the kernel's (flock), so it goes with the process, whatever ended it. Engine commands use the store beside it: they take no claim.
"""

from __future__ import annotations

import fcntl
import os
from types import TracebackType
from typing import Final, Self

from unikeel.errors import FailedPrecondition, of_system

_FILE: Final = "snapshotter.lock"


class Claim:
    """The claim on a state root, from construction to :meth:`close`; a context manager.

    :raise FailedPrecondition: another process has it; the message tells which.
    """

    def __init__(self, root: str) -> None:
        path = os.path.join(root, _FILE)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise of_system(error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            raise FailedPrecondition(
                f"the snapshots of {root} are served by process {holder} already",
                "stop that one first, or give this one a state root of its own with --root",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it up. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
