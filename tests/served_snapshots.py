"""A store behind the snapshots service, in a thread of this process, and clients of it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from grpclib.client import Channel

from unikeel.records.database import Database
from unikeel.shim.workers import Workers
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.snapshots.service.handlers import SnapshotsService
from unikeel.snapshots.service.serving import Serving
from unikeel.testing.remote_snapshots import RemoteSnapshots

T = TypeVar("T")
_SECONDS = 120.0


def listening(path: str) -> socket.socket:
    """A socket that listens at a path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen()
    return sock


def file_store(directory: Path, consumer: str = "suite", empty_size: int = 1 << 24) -> FileStore:
    """A store of files with records of its own."""
    database = Database(os.fspath(directory / "records.db"))
    return FileStore(
        os.fspath(directory / "snapshots"), database, consumer=consumer, owner="suite", empty_size=empty_size
    )


class Served:
    """A store that is served at a socket in a directory, from the beginning of a block to its end."""

    def __init__(self, store: SnapshotStore, directory: Path, listener: socket.socket | None = None) -> None:
        self.address = os.fspath(directory / "grpc.sock")
        self.told: list[tuple[str, str]] = []
        self.listener = listener or listening(self.address)
        #: While it is not set, every call of the store waits before it begins; counted in ``begun``.
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = 0
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._serving: Serving | None = None
        self.service: SnapshotsService | None = None

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Have something done in the service's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    def client(self, namespace: str = "suite") -> RemoteSnapshots:
        """A client, to be closed."""
        return RemoteSnapshots(self.address, "unikeel", namespace)

    def channel(self) -> Channel:
        """A connection for calls of any kind; from within what :meth:`do` does."""
        return Channel(path=self.address)

    def _after_waiting(self, function: Callable[[], Any]) -> Any:
        self.begun += 1
        self.go_on.wait(_SECONDS)
        return function()

    async def _begin(self) -> None:
        workers = Workers(8)

        def work(function: Callable[[], Any]) -> asyncio.Future[Any]:
            return workers.run(lambda: self._after_waiting(function))

        self.service = service = SnapshotsService(
            lambda: self._store, work, lambda name, _s, error: self.told.append((name, error))
        )
        self._serving = Serving(self.listener, service)
        self._serving.begin()

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._serving is not None
        self.do(self._serving.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
