"""From an image's archive to an exit code, against a small containerd in this process."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from containerd_fake import Fake
from synthetic_images import INDEX, Layout, digest, docker_archive, dumps, one, save, tar_of
from ttrpc_service import run
from unikeel.containerd.bringing import full_name
from unikeel.containerd.client import Containerd
from unikeel.containerd.oci import Process
from unikeel.containerd.records import COMMITTED, Descriptor, ImageRecord
from unikeel.containerd.workflow import (
    Fifos,
    describe,
    import_image,
    leased,
    new_container,
    remove_container,
    unpack,
)
from unikeel.errors import AlreadyExists, BadContent, FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.images.digests import chain_id

_LAYERS = [tar_of({"one": b"1" * 100}), tar_of({"two": b"2"})]
_CHAINS = [chain_id([digest(_LAYERS[0])]), chain_id([digest(layer) for layer in _LAYERS])]


@asynccontextmanager
async def _world() -> AsyncIterator[tuple[Fake, Containerd]]:
    fake = Fake()
    async with fake.serving() as path, Containerd(path, "ns") as containerd:
        yield fake, containerd


def _archive(directory: object, **arguments: Any) -> str:
    return one(layers=_LAYERS, **arguments).archive(f"{directory}/image.tar")


def _spec(fake: Fake, name: str) -> Any:
    return json.loads(fake.containers[name].spec.value)


def test_an_archive_becomes_an_image_that_keeps_its_blobs(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))
            assert image.name == "docker.io/library/web:1"
            assert fake.images[image.name].target.digest == image.target.digest
            found = await describe(containerd, image.name)
            assert found.image.cmd == ("run",)
            labels = fake.labels[image.target.digest]
            assert labels == {
                "containerd.io/gc.ref.content.config": found.manifest.config.digest,
                "containerd.io/gc.ref.content.l.0": digest(_LAYERS[0]),
                "containerd.io/gc.ref.content.l.1": digest(_LAYERS[1]),
            }
            leases = {one.lease for one in fake.calls("Content/Write") + fake.calls("Images/Create")}
            assert len(leases) == 1
            assert leases.pop().startswith("unikeel-import-")
            assert "containerd.io/gc.expire" in fake.calls("Leases/Create")[0].request.labels
            assert fake.leases == {}

    run(test)


def test_importing_again_moves_the_name(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            first = await import_image(containerd, _archive(tmp_path), "mine")
            again = await import_image(containerd, _archive(tmp_path), "mine")
            assert again.target == first.target
            other = await import_image(containerd, one().archive(f"{tmp_path}/other.tar"), "mine")
            assert fake.images["mine"].target.digest == other.target.digest != first.target.digest

    run(test)


def test_a_docker_archive_is_imported_too(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (_, containerd):
            image = await import_image(containerd, save(f"{tmp_path}/docker.tar", tar_of(docker_archive(_LAYERS))))
            assert image.name == "docker.io/library/web:1"
            assert await unpack(containerd, image, "s") == _CHAINS[1]

    run(test)


def test_archives_that_cannot_be_imported(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            nameless = Layout()
            nameless.add(nameless.image())
            with pytest.raises(InvalidArgument, match="has no name"):
                await import_image(containerd, nameless.archive(f"{tmp_path}/nameless.tar"))
            two = Layout()
            two.add(two.image(), "a:1").add(two.image(_LAYERS), "b:1")
            with pytest.raises(InvalidArgument, match="several images"):
                await import_image(containerd, two.archive(f"{tmp_path}/two.tar"), "x")
            with pytest.raises(NotFound):
                await import_image(containerd, f"{tmp_path}/nothing.tar")
            with pytest.raises(BadContent):
                await import_image(containerd, save(f"{tmp_path}/bad.tar", b"x" * 2000))
            assert (fake.leases, fake.images, fake.blobs) == ({}, {}, {})

    run(test)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web:1", "docker.io/library/web:1"),
        ("me/web:1", "docker.io/me/web:1"),
        ("ghcr.io/me/web:1", "ghcr.io/me/web:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("host:5000/web:1", "host:5000/web:1"),
        ("", ""),
    ],
)
def test_names_in_full(name: str, full: str) -> None:
    assert full_name(name) == full


def test_layers_become_snapshots_once(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))
            assert await unpack(containerd, image, "s") == _CHAINS[1]
            found = await containerd.snapshots("s").list()
            assert [(info.name, info.parent, info.kind) for info in found] == [
                (_CHAINS[0], "", COMMITTED),
                (_CHAINS[1], _CHAINS[0], COMMITTED),
            ]
            config = (await describe(containerd, image)).manifest.config.digest
            assert fake.labels[config] == {"containerd.io/gc.ref.snapshot.s": _CHAINS[1]}
            assert fake.labels[digest(_LAYERS[0])] == {"containerd.io/uncompressed": digest(_LAYERS[0])}
            assert fake.snapshots["s", _CHAINS[0]].labels == {"containerd.io/snapshot.ref": _CHAINS[0]}
            before = len(fake.calls("Diff/Apply"))
            await unpack(containerd, image, "s")
            assert len(fake.calls("Diff/Apply")) == before == 2
            assert await unpack(containerd, image, "t") == _CHAINS[1]
            assert fake.leases == {}

    run(test)


def test_compressed_layers_and_an_image_behind_an_index(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            zipped = [gzip.compress(layer, mtime=0) for layer in _LAYERS]
            layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
            config = {"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in _LAYERS]}}
            source = one(layers=zipped, layer_type=layer_type, config=config).archive(f"{tmp_path}/i.tar")
            image = await import_image(containerd, source)
            manifest = {"mediaType": image.target.media_type, "digest": image.target.digest, "size": image.target.size}
            entries = [
                {**manifest, "digest": "sha256:" + "1" * 64, "platform": {"os": "linux", "architecture": "s390x"}},
                {**manifest, "platform": {"os": "linux", "architecture": "amd64"}},
            ]
            index = dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
            await containerd.content.write("index", index, digest(index))
            fake.images.clear()
            await containerd.images.create(ImageRecord("web", Descriptor(INDEX, digest(index), len(index))))
            assert await unpack(containerd, "web", "s") == _CHAINS[1]

    run(test)


def test_who_comes_second_uses_the_first_one_s_snapshots(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))
            fake.slow["Diff/Apply"] = 0.02
            assert set(await asyncio.gather(*(unpack(containerd, image, "s") for _ in range(5)))) == {_CHAINS[1]}
            assert [info.kind for info in await containerd.snapshots("s").list()] == [COMMITTED, COMMITTED]

    run(test)


@pytest.mark.parametrize("method", ["Diff/Apply", "Snapshots/Commit"])
def test_an_unpacking_that_fails_leaves_nothing(method: str, tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))
            fake.fail[method] = GRPCError(Status.INTERNAL, "no")
            with pytest.raises(UnikeelError, match="no"):
                await unpack(containerd, image, "s")
            assert (fake.snapshots, fake.leases) == ({}, {})

    run(test)


def test_a_layer_that_is_not_what_the_configuration_says(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            wrong = {"rootfs": {"type": "layers", "diff_ids": [digest(b"1"), digest(b"2")]}}
            image = await import_image(containerd, _archive(tmp_path, config=wrong))
            with pytest.raises(BadContent, match="but the configuration says"):
                await unpack(containerd, image, "s")
            assert fake.snapshots == {}
            with pytest.raises(InvalidArgument, match="not loaded"):
                await unpack(containerd, image, "bogus")

    run(test)


def test_a_container_is_made_of_its_image(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            long = {"Labels": {"label": "1", "long": "x" * 5000}, "Cmd": ["run"], "Env": ["A=b"], "User": "7:8"}
            image = await import_image(containerd, _archive(tmp_path, config={"config": long}), "web")
            container = await new_container(
                containerd,
                image,
                "c",
                snapshotter="s",
                process=Process(args=("go", "on"), env=("A=c", "D=e"), cwd="/tmp", terminal=True),
                annotations={"org.unikeel.x": "y"},
                labels={"l": "m"},
            )
            record = container.record
            assert (record.id, record.image, record.snapshotter, record.snapshot_key) == ("c", "web", "s", "c")
            assert record.runtime.name == "io.containerd.unikeel.v2"
            assert record.labels == {"label": "1", "l": "m"}
            assert fake.snapshots["s", "c"].parent == _CHAINS[1]
            spec = _spec(fake, "c")
            assert spec["process"]["args"] == ["go", "on"]
            assert spec["process"]["env"][1:] == ["A=c", "TERM=xterm", "D=e"]
            assert spec["process"]["env"][0].startswith("PATH=")
            assert (spec["process"]["cwd"], spec["process"]["terminal"]) == ("/tmp", True)
            assert spec["process"]["user"] == {"uid": 7, "gid": 8}
            assert spec["annotations"] == {"org.unikeel.x": "y"}
            assert spec["linux"]["cgroupsPath"] == "/ns/c"
            assert {"type": "network"} in spec["linux"]["namespaces"]
            lease = fake.calls("Containers/Create")[0].lease
            assert lease == fake.calls("Snapshots/Prepare")[-1].lease
            assert lease.startswith("unikeel-create-")
            await container.remove()
            await container.remove()
            assert ("s", "c") not in fake.snapshots
            assert (fake.containers, fake.leases) == ({}, {})

    run(test)


def test_containers_that_cannot_be_made(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            nothing = await import_image(containerd, _archive(tmp_path, config={"config": {}}), "nothing")
            with pytest.raises(InvalidArgument, match="names no program to run"):
                await new_container(containerd, nothing, "c", snapshotter="s")
            named = await import_image(
                containerd, _archive(tmp_path, config={"config": {"Cmd": ["x"], "User": "www"}}), "named"
            )
            with pytest.raises(InvalidArgument, match="not given in numbers"):
                await new_container(containerd, named, "c", snapshotter="s")
            await new_container(containerd, named, "c", snapshotter="s", process=Process(user="5"), host_network=True)
            assert _spec(fake, "c")["process"]["user"] == {"uid": 5, "gid": 0}
            assert {"type": "network"} not in _spec(fake, "c")["linux"]["namespaces"]
            with pytest.raises(AlreadyExists):
                await new_container(containerd, named, "c", snapshotter="s", process=Process(user="5"))
            assert ("s", "c") in fake.snapshots
            fake.fail["Containers/Create"] = GRPCError(Status.INVALID_ARGUMENT, "no")
            with pytest.raises(InvalidArgument, match="no"):
                await new_container(containerd, named, "d", snapshotter="s", process=Process(user="5"))
            assert ("s", "d") not in fake.snapshots
            assert fake.leases == {}

    run(test)


def test_a_task_from_its_start_to_its_end(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))
            container = await new_container(containerd, image, "c", snapshotter="s")
            async with (
                container,
                Fifos(stdin=True, directory=str(tmp_path)) as fifos,
                await container.task(fifos) as task,
            ):
                request = fake.calls("Tasks/Create")[0].request
                assert [mount.source for mount in request.rootfs] == ["c"]
                shim_in = os.open(request.stdin, os.O_RDONLY | os.O_NONBLOCK)
                shim_out = os.open(request.stdout, os.O_WRONLY)
                shim_err = os.open(request.stderr, os.O_WRONLY)
                fifos.opened()
                assert await task.start() == 42
                assert (await task.state()).status == "running"
                await fifos.write(b"in")
                assert os.read(shim_in, 10) == b"in"
                fifos.end()
                assert os.read(shim_in, 10) == b""
                os.write(shim_out, b"out")
                os.write(shim_err, b"err")
                fake.end("c", 3)
                for fd in (shim_in, shim_out, shim_err):
                    os.close(fd)
                assert (await fifos.stdout.read(), await fifos.stderr.read()) == (b"out", b"err")
                assert (await task.wait()).status == 3
                assert (await task.delete()).status == 3
                assert len(os.listdir(str(tmp_path))) == 2
            assert os.listdir(str(tmp_path)) == ["image.tar"]
            assert (fake.tasks, fake.containers, ("s", "c") in fake.snapshots) == ({}, {}, False)

    run(test)


def test_leaving_kills_what_still_runs(tmp_path: object) -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            image = await import_image(containerd, _archive(tmp_path))

            async def failing() -> None:
                async with (
                    await new_container(containerd, image, "c", snapshotter="s") as container,
                    await container.task() as task,
                ):
                    await task.start()
                    raise RuntimeError("mine")

            with pytest.raises(RuntimeError, match="mine"):
                await failing()
            assert [one.request.signal for one in fake.calls("Tasks/Kill")] == [signal.SIGKILL]
            assert (fake.tasks, fake.containers) == ({}, {})
            await (await (await new_container(containerd, image, "d", snapshotter="s")).task()).start()
            await remove_container(containerd, "d")
            await remove_container(containerd, "d")
            assert (fake.tasks, fake.containers) == ({}, {})
            assert [name for _, name in fake.snapshots] == _CHAINS

    run(test)


def test_a_lease_ends_with_its_block() -> None:
    async def test() -> None:
        async with _world() as (fake, containerd):
            async with leased(containerd, "x") as lease:
                assert lease in fake.leases
            assert fake.leases == {}
            async with leased(containerd, "x") as lease:
                await containerd.leases.delete(lease)

    run(test)


def test_fifos_that_are_full_wait_and_closed_ones_say_so(tmp_path: object) -> None:
    async def test() -> None:
        async with Fifos(stdin=True, terminal=True, directory=str(tmp_path)) as fifos:
            assert fifos.stdio.stderr == ""
            assert fifos.stdio.terminal
            with pytest.raises(FailedPrecondition, match="no standard error"):
                _ = fifos.stderr
            reader = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
            fifos.opened()
            writing = asyncio.create_task(fifos.write(b"x" * 300_000))
            found = 0
            while found < 300_000:
                await asyncio.sleep(0)
                try:
                    found += len(os.read(reader, 1 << 16))
                except BlockingIOError:
                    continue
            await writing
            os.close(reader)
            with pytest.raises(FailedPrecondition, match="nobody reads"):
                await fifos.write(b"y")
            fifos.end()
            with pytest.raises(FailedPrecondition, match="closed"):
                await fifos.write(b"y")
        assert os.listdir(str(tmp_path)) == []

    run(test)
