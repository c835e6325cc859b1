"""Following a guest's console, which the keeper writes to ``console.log``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType

from unikeel.lean import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from unikeel.engine.services import Services

_CHUNK: Final = 64 * 1024


class ConsoleReader:
    """Reads what is appended to a console log, across its turning over. ``offset``: where to begin."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        self._fd = -1
        self._offset = offset

    def read(self) -> bytes:
        """Some of what has come since the last call; empty when there is no more for now."""
        if self._fd < 0 and not self._open():
            return b""
        data = self._more()
        if data or not self._turned_over():
            return data
        # Something may have come between our reading and its turning over.
        data = self._more()
        if data:
            return data
        os.close(self._fd)
        self._fd, self._offset = -1, 0
        return self.read()

    def _more(self) -> bytes:
        data = os.pread(self._fd, _CHUNK, self._offset)
        self._offset += len(data)
        return data

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        if os.fstat(self._fd).st_size < self._offset:  # it was turned over since the offset was taken
            self._offset = 0
        return True

    def _turned_over(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def follow(services: Services, ident: str, offset: int) -> Iterator[bytes]:
    """What is appended to a container's console log from an offset on, as it comes, until its present run ends.

    Ends at once, with what there is, if the container does not run. A keeper that is killed meanwhile is replaced.
    """
    from unikeel.errors import Unavailable

    path = os.path.join(services.layout.container(ident), "console.log")
    with ConsoleReader(path, offset) as reader:
        while True:
            connection, running = services.keeper.watch(ident)
            with connection:
                while True:
                    while data := reader.read():
                        yield data
                    if not running:
                        break
                    try:
                        event = connection.event(None)
                    except Unavailable:
                        break
                    running = event is None or event.get("event") != "exit"
            if not running and not _is_lost(services, ident):
                return


def _is_lost(services: Services, ident: str) -> bool:
    """Whether a container runs that the keeper did not know, as its keeper was killed; it knows it then."""
    from unikeel.engine import ending
    from unikeel.errors import NotFound
    from unikeel.model.states import ContainerState

    try:
        container = services.containers.get(ident)
    except NotFound:
        return False
    if container.state is not ContainerState.RUNNING or ending.exit_report(services, container) is not None:
        return False
    return ending.process_lives(container) and ending.adopt(services, container)


def size(path: str) -> int:
    """How long the log is now; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
