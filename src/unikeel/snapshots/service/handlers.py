"""The calls of containerd's snapshots service, answered by a store.

What a call says of its snapshotter and its namespace is not looked at: a socket belongs to one consumer, and containerd's collector calls
without a namespace. Every call of the store runs in a worker thread. A caller that goes away does not end what it asked for: containerd's
collector takes away what nobody knows.

Failures become gRPC's codes by :data:`unikeel.errors.TABLE`, with the error's whole sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from unikeel.containerd.wire import snapshots_pb2 as wire
from unikeel.errors import UnikeelError, mapping, of_system
from unikeel.lean import Any, Final, TypeVar
from unikeel.snapshots.contract import Info, SnapshotStore
from unikeel.snapshots.service.connection import Method, Refusal
from unikeel.snapshots.service.messages import batches, info_message, mount_messages

SERVICE: Final = "containerd.services.snapshots.v1.Snapshots"

Q = TypeVar("Q", bound=Message)
T = TypeVar("T")
#: Runs a function in a worker thread, from the event loop.
Work = Callable[[Callable[[], Any]], Awaitable[Any]]
#: Is told of each call: its method, how long it took in seconds, and the class of its error (empty: none).
Told = Callable[[str, float, str], None]
#: gRPC's codes that have no error of ours.
_INVALID, _INTERNAL = 3, 13
_LOG: Final = logging.getLogger("unikeel.snapshots")


def _nobody(_method: str, _seconds: float, _error: str) -> None:
    """Who is told of calls if nobody is interested."""


class SnapshotsService:
    """The service over one store, which ``store`` gives in a worker thread (what it raises is the call's answer).

    ``work`` has functions run in worker threads, ``told`` counts the calls.
    """

    def __init__(self, store: Callable[[], SnapshotStore], work: Work, told: Told = _nobody) -> None:
        self._store = store
        self._work = work
        self._told = told
        self._cleaning = asyncio.Lock()
        #: Snapshots were removed, and nobody has given their space back yet.
        self.dirty = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def methods(self) -> dict[str, Method]:
        """What a connection asks for: each method by its path."""
        unary: dict[str, tuple[type[Message], Callable[[Any], Awaitable[Message]]]] = {
            "Prepare": (wire.PrepareSnapshotRequest, self._prepare),
            "View": (wire.ViewSnapshotRequest, self._view),
            "Mounts": (wire.MountsRequest, self._mounts),
            "Commit": (wire.CommitSnapshotRequest, self._commit),
            "Remove": (wire.RemoveSnapshotRequest, self._remove),
            "Stat": (wire.StatSnapshotRequest, self._stat),
            "Update": (wire.UpdateSnapshotRequest, self._update),
            "Usage": (wire.UsageRequest, self._usage),
            "Cleanup": (wire.CleanupRequest, self._cleanup),
        }
        found: dict[str, Method] = {
            f"/{SERVICE}/{name}": partial(self._unary, name, method, request)
            for name, (request, method) in unary.items()
        }
        found[f"/{SERVICE}/List"] = self._list
        return found

    async def settle(self, seconds: float) -> None:
        """Wait until no call is being answered, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)

    # --- around every call ----------------------------------------------------------------------------------------------

    async def _unary(
        self, name: str, method: Callable[[Any], Awaitable[Message]], kind: type[Message], data: bytes
    ) -> bytes:
        request = _decoded(kind, data)
        return (await self._answered(name, method(request))).SerializeToString()

    async def _answered(self, name: str, answer: Awaitable[T], *, count: bool = True) -> T:
        """The answer of a call, or with ``count`` false one of several. :raise Refusal: what it failed by."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        error = ""
        self._under_way += 1
        self._idle.clear()
        try:
            return await answer
        except UnikeelError as failed:
            error = type(failed).__name__
            raise _refused(name, failed) from failed
        except OSError as failed:
            error = "OSError"
            raise _refused(name, of_system(failed, "the daemon's log may tell more")) from failed
        except asyncio.CancelledError:
            error = "Cancelled"
            raise
        except Exception as failed:
            error = "Internal"
            _LOG.exception("%s failed in a way that is our own mistake", name)
            raise Refusal(_INTERNAL, f"{name} failed: {type(failed).__name__}, see the daemon's log") from failed
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
            if count or error:
                self._told(name, loop.time() - began, error)

    # --- the calls ------------------------------------------------------------------------------------------------------

    async def _prepare(self, request: wire.PrepareSnapshotRequest) -> wire.PrepareSnapshotResponse:
        labels = dict(request.labels)
        mounts = await self._work(lambda: self._store().prepare(request.key, request.parent, labels))
        return wire.PrepareSnapshotResponse(mounts=mount_messages(mounts))

    async def _view(self, request: wire.ViewSnapshotRequest) -> wire.ViewSnapshotResponse:
        labels = dict(request.labels)
        mounts = await self._work(lambda: self._store().view(request.key, request.parent, labels))
        return wire.ViewSnapshotResponse(mounts=mount_messages(mounts))

    async def _mounts(self, request: wire.MountsRequest) -> wire.MountsResponse:
        return wire.MountsResponse(mounts=mount_messages(await self._work(lambda: self._store().mounts(request.key))))

    async def _commit(self, request: wire.CommitSnapshotRequest) -> Empty:
        labels = dict(request.labels)
        await self._work(lambda: self._store().commit(request.name, request.key, labels, parent=request.parent))
        return Empty()

    async def _remove(self, request: wire.RemoveSnapshotRequest) -> Empty:
        await self._work(lambda: self._store().remove(request.key))
        self.dirty = True
        return Empty()

    async def _stat(self, request: wire.StatSnapshotRequest) -> wire.StatSnapshotResponse:
        return wire.StatSnapshotResponse(info=info_message(await self._work(lambda: self._store().stat(request.key))))

    async def _update(self, request: wire.UpdateSnapshotRequest) -> wire.UpdateSnapshotResponse:
        labels, paths = dict(request.info.labels), list(request.update_mask.paths)
        info = await self._work(lambda: self._store().update(request.info.name, labels, paths))
        return wire.UpdateSnapshotResponse(info=info_message(info))

    async def _usage(self, request: wire.UsageRequest) -> wire.UsageResponse:
        used = await self._work(lambda: self._store().usage(request.key))
        return wire.UsageResponse(size=used.size, inodes=used.inodes)

    async def _cleanup(self, _request: wire.CleanupRequest) -> Empty:
        await self.cleanup()
        return Empty()

    async def cleanup(self) -> None:
        """Give the space of removed snapshots back. Who comes while that is being done waits, and finds little left to do."""
        async with self._cleaning:
            self.dirty = False
            await self._work(lambda: self._store().cleanup())

    async def _list(self, data: bytes) -> AsyncIterator[bytes]:
        """In batches, with nothing locked between them, so that other calls may be made meanwhile."""
        filters = list(_decoded(wire.ListSnapshotsRequest, data).filters)
        found: Iterator[list[Info]] = await self._answered(
            "List", self._work(lambda: batches(self._store().list(filters)))
        )
        while batch := await self._answered("List", self._work(lambda: next(found, None)), count=False):
            yield wire.ListSnapshotsResponse(info=[info_message(info) for info in batch]).SerializeToString()


def _decoded(kind: type[Q], data: bytes) -> Q:
    """A request. :raise Refusal: it is none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Refusal(_INVALID, "the request is not what its method takes") from error


def _refused(name: str, error: UnikeelError) -> Refusal:
    _LOG.debug("%s is refused: %s", name, error)
    return Refusal(mapping(error).rpc, str(error))
