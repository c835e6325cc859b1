"""The client of containerd, against a small one in this process: what is asked, what is told, and what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable
from contextlib import aclosing

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from containerd_fake import Asked, Fake
from synthetic_images import save
from ttrpc_service import run
from unikeel.containerd.calling import LARGEST
from unikeel.containerd.client import Containerd
from unikeel.containerd.records import (
    ContainerRecord,
    Descriptor,
    Event,
    ImageRecord,
    LeaseResource,
    Mount,
    Packed,
    Runtime,
    SnapshotInfo,
    Stdio,
)
from unikeel.containerd.tasks import body
from unikeel.containerd.wire import containers_pb2, events_pb2, images_pb2, types_pb2
from unikeel.errors import (
    TABLE,
    AlreadyExists,
    BadContent,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    UnikeelError,
    Unimplemented,
    of_rpc,
)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_namespace_and_lease_travel_with_each_call() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(f"unix://{path}", "one") as containerd:
            assert (await containerd.version()).version == "v9.9"
            other = containerd.with_namespace("two")
            await other.snapshots("s").prepare("k", lease="l")
            assert (other.namespace, other.address) == ("two", f"unix://{path}")
            assert [(one.namespace, one.lease) for one in fake.asked] == [("one", ""), ("two", "l")]

    run(test)


def test_snapshots() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(path) as containerd:
            snapshots = containerd.snapshots("devmapper")
            mounts = await snapshots.prepare("key", labels={"a": "b"})
            assert mounts == (Mount("ext4", "/dev/key", "", ("ro", "nouuid")),)
            created = 1700000000 * 10**9 + 5
            assert await snapshots.stat("key") == SnapshotInfo("key", "", "active", created, 0, {"a": "b"})
            await snapshots.commit("base", "key", {"c": "d"})
            await snapshots.view("view", "base")
            assert [(one.name, one.kind) for one in await snapshots.list()] == [("base", "committed"), ("view", "view")]
            assert (await snapshots.label("view", {"x": "y"})).labels == {"x": "y"}
            assert await snapshots.mounts("view") == (Mount("bind", "view"),)
            assert await snapshots.usage("base") == (12, 3)
            with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child"):
                await snapshots.remove("base")
            await snapshots.remove("view")
            with pytest.raises(NotFound, match="snapshot view: not found"):
                await snapshots.stat("view")
            with pytest.raises(InvalidArgument, match="not loaded"):
                await containerd.snapshots("bogus").stat("base")

    run(test)


def test_stores_give_back_what_was_put_in() -> None:
    async def test() -> None:
        async with Fake().serving() as path, Containerd(path) as containerd:
            record = ContainerRecord(
                id="c",
                image="i",
                runtime=Runtime("io.containerd.unikeel.v2", Packed("t", b"v")),
                spec=Packed("s", b"{}"),
                snapshotter="devmapper",
                snapshot_key="c",
                labels={"a": "b"},
                extensions={"x": Packed("y", b"z")},
                sandbox="pod",
            )
            assert await containerd.containers.create(record) == record
            assert await containerd.containers.get("c") == record
            assert await containerd.containers.list() == [record]
            with pytest.raises(AlreadyExists):
                await containerd.containers.create(record)
            image = ImageRecord("name", Descriptor("m", "sha256:0", 7, {"k": "v"}), {"l": "m"})
            assert await containerd.images.create(image) == image
            assert await containerd.images.get("name") == image
            lease = await containerd.leases.create("l", {"a": "b"})
            assert [lease] == await containerd.leases.list()
            await containerd.leases.add_resource("l", "snapshots/devmapper", "k")
            assert await containerd.leases.resources("l") == [LeaseResource("snapshots/devmapper", "k")]
            await containerd.leases.delete("l", sync=True)
            assert [one.name for one in await containerd.namespaces.list()] == ["default"]
            assert await containerd.introspection.server() == ("u", 4, 5)

    run(test)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 3 * (1 << 20) + 5])
def test_content_is_written_in_pieces_and_read_whole(size: int) -> None:
    async def test() -> None:
        fake = Fake()
        data = os.urandom(size)
        async with fake.serving() as path, Containerd(path) as containerd:
            await containerd.content.write("r", data, _digest(data), {"a": "b"}, lease="l")
            assert fake.blobs == {_digest(data): data}
            assert fake.calls("Content/Write")[0].lease == "l"
            assert await containerd.content.read(_digest(data)) == data
            info = await containerd.content.info(_digest(data))
            assert (info.size, info.labels) == (size, {"a": "b"})

    run(test)


def test_a_write_that_broke_off_is_continued_from_a_file(tmp_path: object) -> None:
    async def test() -> None:
        fake = Fake()
        data = os.urandom(2_500_000)
        save(f"{tmp_path}/blob", data)
        fake.partial["r"] = data[:1_234_567]
        async with fake.serving() as path, Containerd(path) as containerd:
            fd = os.open(f"{tmp_path}/blob", os.O_RDONLY)
            await containerd.content.write("r", fd, _digest(data))
            os.close(fd)
            assert fake.blobs == {_digest(data): data}

    run(test)


def test_what_is_there_is_not_written_again_but_labelled() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(path) as containerd:
            await containerd.content.write("r", b"x", _digest(b"x"))
            await containerd.content.write("r", b"x", _digest(b"x"), {"a": "b"})
            assert fake.labels[_digest(b"x")] == {"a": "b"}

    run(test)


def test_a_locked_reference_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unikeel.containerd.content._PATIENCE", 60.0)

    async def test() -> None:
        fake = Fake()
        fake.locked.add("r")
        async with fake.serving() as path, Containerd(path) as containerd:
            writing = asyncio.create_task(containerd.content.write("r", b"x", _digest(b"x")))
            await asyncio.sleep(0.05)
            fake.locked.clear()
            await writing
            fake.locked.add("q")
            monkeypatch.setattr("unikeel.containerd.content._PATIENCE", 0.05)
            with pytest.raises(Unavailable, match="locked"):
                await containerd.content.write("q", b"y", _digest(b"y"))

    run(test)


def test_content_that_is_not_what_it_should_be() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(path) as containerd:
            with pytest.raises(FailedPrecondition, match="unexpected commit digest"):
                await containerd.content.write("r", b"x", _digest(b"y"))
            fake.blobs[_digest(b"good")] = b"evil"
            with pytest.raises(BadContent, match="not what its digest says"):
                await containerd.content.read(_digest(b"good"))
            with pytest.raises(BadContent, match="more than the 3 bytes"):
                await containerd.content.read(_digest(b"good"), limit=3)
            with pytest.raises(BadContent, match="at most 8388608 are read"):
                await containerd.content.read(Descriptor("", "sha256:0", 1 << 30))
            with pytest.raises(NotFound):
                await containerd.content.read("sha256:0")

    run(test)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.CANCELLED, Unavailable),
        (Status.UNKNOWN, UnikeelError),
        (Status.INVALID_ARGUMENT, InvalidArgument),
        (Status.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Status.NOT_FOUND, NotFound),
        (Status.ALREADY_EXISTS, AlreadyExists),
        (Status.PERMISSION_DENIED, PermissionDenied),
        (Status.RESOURCE_EXHAUSTED, ResourceExhausted),
        (Status.FAILED_PRECONDITION, FailedPrecondition),
        (Status.UNIMPLEMENTED, Unimplemented),
        (Status.UNAVAILABLE, Unavailable),
        (Status.DATA_LOSS, BadContent),
    ],
)
def test_errors_are_ours_in_containerd_s_words(status: Status, kind: type[UnikeelError]) -> None:
    async def test() -> None:
        fake = Fake()
        for method in ("Snapshots/Stat", "Snapshots/List", "Content/Write"):
            fake.fail[method] = GRPCError(status, 'it is "so": 100 %, äöü')
        async with fake.serving() as path, Containerd(path) as containerd:
            writing = containerd.content.write("r", b"x", "sha256:0")
            if status is Status.ALREADY_EXISTS:
                await writing  # which is what was wanted
                writing = containerd.content.write("r", b"x", "sha256:0", {"a": "b"})
                fake.fail["Content/Update"] = fake.fail["Content/Write"]
            calls: list[Awaitable[object]] = [
                containerd.snapshots("s").stat("k"),
                containerd.snapshots("s").list(),
                writing,
            ]
            for call in calls:
                with pytest.raises(UnikeelError) as caught:
                    await call
                assert type(caught.value) is kind
                assert caught.value.message == 'it is "so": 100 %, äöü'

    run(test)


def test_the_table_of_errors_reads_the_same_both_ways() -> None:
    for kind, row in TABLE.items():
        found = type(of_rpc(row.rpc, "m"))
        assert found is kind or TABLE[found].rpc == row.rpc
    assert type(of_rpc(99, "m")) is UnikeelError


def test_without_an_answer_in_time() -> None:
    async def test() -> None:
        fake = Fake()
        fake.slow["Version/Version"] = 5
        async with fake.serving() as path, Containerd(path) as containerd:
            with pytest.raises(DeadlineExceeded, match=r"did not answer Version/Version within 0\.05 s"):
                await containerd.version(timeout=0.05)
            assert (await containerd.introspection.server()).uuid == "u"

    run(test)


def test_a_stream_that_containerd_resets_is_late_only_at_its_deadline() -> None:
    async def test() -> None:
        fake = Fake()
        fake.reset.add("Version/Version")
        async with fake.serving() as path, Containerd(path) as containerd:
            with pytest.raises(Unavailable, match="ended during Version/Version") as caught:
                await containerd.version()
            assert type(caught.value) is Unavailable
            fake.slow["Version/Version"] = 0.195
            with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
                await containerd.version(timeout=0.2)

    run(test)


def test_it_comes_back_when_containerd_does(tmp_path: object) -> None:
    async def test() -> None:
        path = f"{tmp_path}/containerd.sock"
        async with Containerd(path) as containerd:
            with pytest.raises(Unavailable, match="No such file or directory"):
                await containerd.version()
            fake = Fake()
            async with fake.serving(path):
                await containerd.version()
                await containerd.tasks.create("c")
                waiting = asyncio.create_task(containerd.tasks.wait("c"))
                await asyncio.sleep(0.05)
            with pytest.raises(Unavailable, match="ended during Tasks/Wait"):
                await waiting
            with pytest.raises(Unavailable):
                await containerd.version()
            async with Fake().serving(path):
                await containerd.version()

    run(test)


def test_a_closed_client_can_be_used_again() -> None:
    async def test() -> None:
        async with Fake().serving() as path:
            containerd = Containerd(path)
            await containerd.close()
            await containerd.version()
            await containerd.close()
            await containerd.version()
            await containerd.close()

    run(test)


def test_messages_over_the_limit_are_not_sent_and_not_taken() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(path) as containerd:
            with pytest.raises(ResourceExhausted, match="a request of"):
                await containerd.snapshots("s").stat("x" * LARGEST)
            fake.containers["c"] = containers_pb2.Container(id="c", image="x" * LARGEST)
            with pytest.raises(ResourceExhausted, match="an answer of"):
                await containerd.containers.get("c")
            await containerd.version()

    run(test)


def test_calls_go_on_at_the_same_time() -> None:
    async def test() -> None:
        fake = Fake()
        fake.slow["Version/Version"] = 0.2
        async with fake.serving() as path, Containerd(path) as containerd:
            async with asyncio.timeout(3):
                await asyncio.gather(*(containerd.version() for _ in range(90)))

    run(test)


def test_tasks() -> None:
    async def test() -> None:
        fake = Fake()
        async with fake.serving() as path, Containerd(path) as containerd:
            tasks = containerd.tasks
            stdio = Stdio("i", "o", "e", terminal=True)
            options = Packed("containerd.runc.v1.Options", b"")
            assert await tasks.create("c", [Mount("ext4", "/dev/x", "", ("rw",))], stdio, options) == 42
            request = fake.calls("Tasks/Create")[0].request
            assert (request.rootfs[0].source, request.options.type_url) == ("/dev/x", "containerd.runc.v1.Options")
            waiting = asyncio.create_task(tasks.wait("c"))
            await tasks.start("c")
            found = await tasks.get("c")
            assert found.container == "c"
            assert (found.status, found.stdout, found.terminal, found.exited_ns) == ("running", "o", True, 0)
            await tasks.kill("c", 9, everyone=True)
            assert (await waiting).status == 137
            assert (await tasks.get("c")).status == "stopped"
            assert await tasks.delete("c") == (137, 0, 42)
            with pytest.raises(NotFound):
                await tasks.get("c")

    run(test)


def test_events_arrive_and_can_be_given_up() -> None:
    async def test() -> None:
        fake = Fake()
        envelope = types_pb2.Envelope(namespace="n", topic="/tasks/exit")
        envelope.timestamp.seconds = 3
        envelope.event.type_url = "containerd.events.TaskExit"
        envelope.event.value = events_pb2.TaskExit(container_id="c", exit_status=4).SerializeToString()
        fake.events = [envelope, envelope]
        async with fake.serving() as path, Containerd(path) as containerd:
            async with aclosing(containerd.events.subscribe(['topic=="/tasks/exit"'])) as events:
                event = await anext(events)
            assert (event.namespace, event.topic, event.when_ns) == ("n", "/tasks/exit", 3 * 10**9)
            found = body(event)
            assert isinstance(found, events_pb2.TaskExit)
            assert found.exit_status == 4
            assert fake.calls("Events/Subscribe") == [
                Asked("Events/Subscribe", "default", "", fake.asked[0].request),
            ]
            await asyncio.wait_for(fake.given_up.wait(), 5)
            await containerd.version()

    run(test)


def test_bodies_of_events() -> None:
    def event(kind: str, value: bytes) -> Event:
        return Event(0, "n", "/t", Packed(kind, value))

    name = "containerd.services.images.v1.ImageDelete"
    found = body(event(name, images_pb2.ImageDelete(name="i").SerializeToString()))
    assert isinstance(found, images_pb2.ImageDelete)
    assert body(event("type.googleapis.com/containerd.events.TaskOOM", b"")) == events_pb2.TaskOOM()
    assert body(event("containerd.events.Unheard", b"")) is None
    assert body(event("somebody.TaskExit", b"")) is None
    assert body(event("", b"")) is None
    with pytest.raises(BadContent, match="malformed"):
        body(event("containerd.events.TaskExit", b"\xff"))
