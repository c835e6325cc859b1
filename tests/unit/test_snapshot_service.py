"""The snapshots service over gRPC: what its calls answer, what its errors are, and who is answered at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from served_snapshots import Served, file_store
from unikeel.containerd.wire import snapshots_pb2 as wire
from unikeel.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound, ResourceExhausted
from unikeel.snapshots.contract import Kind, Mount
from unikeel.snapshots.file_store import FileStore
from unikeel.snapshots.service.claim import Claim, check_unclaimed
from unikeel.snapshots.service.messages import BATCH
from unikeel.testing.remote_snapshots import RemoteSnapshots

_SERVICE = "/containerd.services.snapshots.v1.Snapshots"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A store of files, served."""
    with Served(file_store(tmp_path, empty_size=1 << 24), tmp_path) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[RemoteSnapshots]:
    """A client of it."""
    client = served.client()
    yield client
    client.close()


def committed(client: RemoteSnapshots, name: str, parent: str = "") -> None:
    """A committed snapshot."""
    client.prepare(f"making {name}", parent)
    client.commit(name, f"making {name}")


def until(done: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def call(served: Served, method: str, request: Any, response: Any, **options: Any) -> Any:
    """A call with nothing around it: no namespace, no lease."""

    async def once() -> Any:
        async with served.channel() as channel:
            return await UnaryUnaryMethod(channel, f"{_SERVICE}/{method}", type(request), response)(request, **options)

    return served.do(once())


def test_a_life(client: RemoteSnapshots, served: Served, tmp_path: Path) -> None:
    (mount,) = client.prepare("key", "", {"containerd.io/snapshot/a": "1"})
    assert mount == Mount("ext4", os.fspath(tmp_path / "snapshots" / "1.img"), ("loop", "rw"))
    assert client.mounts("key") == [mount]
    assert client.usage("key").inodes == 1
    client.commit("name", "key", {"b": "2"})
    info = client.stat("name")
    assert (info.name, info.parent, info.kind, dict(info.labels)) == ("name", "", Kind.COMMITTED, {"b": "2"})
    (view,) = client.view("view", "name")
    assert view == Mount("ext4", mount.source, ("loop", "ro", "noload"))
    assert [one.name for one in client.list(["kind==view", "kind==committed"])] == ["name", "view"]
    assert dict(client.update("name", {"c": "3"}, ["labels.c"]).labels) == {"b": "2", "c": "3"}
    client.remove("view")
    client.remove("name")
    client.cleanup()
    assert os.listdir(tmp_path / "snapshots") == ["store-id"]
    assert list(client.list()) == []
    assert ("Prepare", "") in served.told


def test_errors_are_those_of_containerd(client: RemoteSnapshots, served: Served) -> None:
    committed(client, "base")
    client.prepare("active", "base")
    for make in (client.prepare, client.view):
        with pytest.raises(AlreadyExists, match="'active'"):
            make("active", "base")
        with pytest.raises(NotFound, match="'nobody'"):
            make("new", "nobody")
        with pytest.raises(InvalidArgument, match="not committed"):
            make("new", "active")
        with pytest.raises(InvalidArgument):
            make("", "base")
    for missing in (client.stat, client.mounts, client.usage, client.remove):
        with pytest.raises(NotFound, match="'nobody'"):
            missing("nobody")
    with pytest.raises(FailedPrecondition, match="cannot remove"):
        client.remove("base")
    with pytest.raises(FailedPrecondition):
        client.mounts("base")
    with pytest.raises(InvalidArgument, match="not on 'other'"):
        client.commit("name", "active", parent="other")
    with pytest.raises(InvalidArgument, match="'parent'"):
        client.update("base", {}, ["parent"])
    with pytest.raises(InvalidArgument, match="filter"):
        list(client.list(["name=="]))
    with pytest.raises(InvalidArgument, match="4096"):
        client.prepare("labelled", "", {"key": "v" * 4096})
    assert ("Stat", "NotFound") in served.told
    assert {info.name for info in client.list()} == {"base", "active"}


def test_calls_without_a_namespace(served: Served) -> None:
    """containerd's collector has none."""
    request = wire.PrepareSnapshotRequest(snapshotter="whatever", key="default/1/key")
    answer = call(served, "Prepare", request, wire.PrepareSnapshotResponse)
    assert [mount.type for mount in answer.mounts] == ["ext4"]
    call(served, "Remove", wire.RemoveSnapshotRequest(key="default/1/key"), Empty)
    call(served, "Cleanup", wire.CleanupRequest(), Empty)


def test_what_it_does_not_know_is_refused(served: Served) -> None:
    with pytest.raises(GRPCError):
        call(served, "Nonsense", wire.CleanupRequest(), Empty)


def test_nonsense_is_invalid(served: Served) -> None:
    """A field that claims more bytes than there are; the connection goes on."""

    async def once() -> None:
        from grpclib.const import Cardinality
        from grpclib.encoding.base import CodecBase

        class Raw(CodecBase):
            __content_subtype__ = "proto"

            def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ARG002
                return b"\x12\x7fshort"

            def decode(self, data: bytes, message_type: Any) -> Any:
                return message_type.FromString(data)

        channel = Channel(path=served.address, codec=Raw())
        async with (
            channel,
            channel.request(f"{_SERVICE}/Stat", Cardinality.UNARY_UNARY, bytes, wire.StatSnapshotResponse) as stream,
        ):
            await stream.send_message(b"", end=True)
            await stream.recv_message()

    with pytest.raises(GRPCError) as refused:
        served.do(once())
    assert refused.value.status is Status.INVALID_ARGUMENT


def test_long_lists_come_in_batches(client: RemoteSnapshots) -> None:
    committed(client, "base")
    wanted = [f"view {number:03}" for number in range(2 * BATCH + 7)]
    for name in wanted:
        client.view(name, "base")
    assert [info.name for info in client.list(["kind==view"])] == wanted


def test_many_at_once(served: Served, client: RemoteSnapshots) -> None:
    """Each of several clients has its own snapshots, and the same key goes to one of them."""
    committed(client, "base")
    taken: list[str] = []

    def work(number: int) -> None:
        mine = served.client(f"namespace {number}")
        try:
            for turn in range(4):
                mine.prepare(f"{number}/{turn}", "base")
            try:
                mine.prepare("contended", "base")
            except AlreadyExists:
                taken.append(str(number))
        finally:
            mine.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 5
    assert len(list(client.list(["kind==active"]))) == 25


class _Troubled(FileStore):
    """Fails in ways of its own."""

    def stat(self, key: str) -> Any:
        """A mistake, or what the kernel says."""
        if key == "mistake":
            raise ZeroDivisionError
        raise OSError(28, "No space left on device")


def test_what_is_not_an_error_of_ours(tmp_path: Path) -> None:
    plain = file_store(tmp_path)
    store = _Troubled(os.fspath(tmp_path / "other"), plain._metadata._database, consumer="x", owner="x", store="other")
    with Served(store, tmp_path) as served:
        client = served.client()
        with pytest.raises(Internal, match="ZeroDivisionError"):
            client.stat("mistake")
        with pytest.raises(ResourceExhausted, match="No space left"):
            client.stat("space")
        client.close()


def test_a_caller_that_goes_away_ends_nothing(served: Served, client: RemoteSnapshots) -> None:
    """What it asked for is done all the same, and the service goes on."""
    served.go_on.clear()

    async def leave() -> None:
        async with served.channel() as channel:
            path = f"{_SERVICE}/Prepare"
            method = UnaryUnaryMethod(channel, path, wire.PrepareSnapshotRequest, wire.PrepareSnapshotResponse)
            task = asyncio.ensure_future(method(wire.PrepareSnapshotRequest(key="left")))
            await asyncio.to_thread(until, lambda: served.begun > 0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, StreamTerminatedError):
                await task

    served.do(leave())
    served.go_on.set()
    until(lambda: [info.name for info in client.list()] == ["left"])


def test_a_client_waits_for_the_next_process(tmp_path: Path) -> None:
    """The listening socket outlives who serves: whoever comes between two is answered by the second."""
    store = file_store(tmp_path)
    with Served(store, tmp_path) as first:
        listener = first.listener.dup()
        early = first.client()
        early.prepare("key", "")
        early.close()
    late = first.client()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(late.stat, "key")
        with Served(store, tmp_path, listener):
            assert asked.result(60).kind is Kind.ACTIVE
            late.close()


def test_what_is_under_way_is_waited_for(served: Served, client: RemoteSnapshots) -> None:
    """As long as was said, and no longer than it takes."""
    assert served.service is not None
    served.do(served.service.settle(60))
    served.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.prepare, "key", "")
        until(lambda: served.begun > 0)
        served.do(served.service.settle(0.01))
        assert not asked.done()
        served.go_on.set()
        served.do(served.service.settle(60))
        assert asked.result(60)[0].type == "ext4"


def test_one_process_serves_a_root(tmp_path: Path) -> None:
    root = os.fspath(tmp_path)
    check_unclaimed(root)
    for ask in (Claim, check_unclaimed):
        with Claim(root), pytest.raises(FailedPrecondition, match=f"process {os.getpid()} already"):
            ask(root)
    check_unclaimed(root)
    code = f"from unikeel.snapshots.service.claim import Claim; c = Claim({root!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FailedPrecondition, match=f"process {other.pid} already"):
            Claim(root)
        other.send_signal(signal.SIGKILL)
        other.wait()
    Claim(root).close()


def test_who_is_answered() -> None:
    """We ourselves, and root; who is what, the kernel says."""
    from unikeel.snapshots.service import serving

    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert serving._is_trusted(ours)
