"""What campaigns measure in the lab, as far as it can be told without one: images of many layers, base sizes, samples that are kept as they come, whose block runs how."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from unikeel.bench import contents, following
from unikeel.bench.campaign import plan, worlds
from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.plan import Block, Cell, World
from unikeel.bench.campaign.results import Results, Series, read
from unikeel.bench.containerd import bases, stacks
from unikeel.bench.containerd import plan as containerd_plan
from unikeel.bench.evaluation import comparing, wording
from unikeel.bench.inference import Difference
from unikeel.bench.rows import Board, Key
from unikeel.bench.snapshotter import plan as snapshotter_plan
from unikeel.errors import BadContent, InvalidArgument, Unavailable
from unikeel.testing.synthetic_bench import campaign

# -- images of many layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("layers-1-first", stacks.Stack(1, 0)), ("layers-20-first", stacks.Stack(20, 0)), ("layers-20-middle", stacks.Stack(20, 9)),
        ("layers-5-last", stacks.Stack(5, 4)), ("layers", None), ("layers-0-first", None), ("layers-5-second", None), ("bulky", None),
    ],
)  # fmt: skip
def test_names_of_images_with_layers(name: str, found: stacks.Stack | None) -> None:
    assert stacks.stack(name) == found


def test_an_image_has_its_boot_files_in_the_layer_that_its_name_says(tmp_path: Path) -> None:
    import json
    import tarfile

    path, stack = tmp_path / "image.tar", stacks.Stack(3, 1)
    path.write_bytes(stacks.made("layers-3-middle", stack))
    assert stacks.made("layers-3-middle", stack) == path.read_bytes()
    assert set(contents.boot_files(str(path), dict(stacks.BOOT_FILES))) == {"kernel", "initrd"}
    with tarfile.open(path) as outer:
        index = json.load(outer.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.load(outer.extractfile(_blob(index["manifests"][0])))  # type: ignore[arg-type]
        names = []
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=outer.extractfile(_blob(layer))) as inner:
                names.append(inner.getnames())
    assert names == [["data", "data/0"], ["data", "data/1", "boot", "boot/kernel", "boot/initrd"], ["data", "data/2"]]


def _blob(entry: dict[str, Any]) -> str:
    return "blobs/" + str(entry["digest"]).replace(":", "/")


# -- samples come as they are taken ----------------------------------------------------------------------------------


class _Here:
    """This host in place of a lab."""

    slowness = 0.01

    def run(self, argv: Sequence[str], *, timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=check)
        except subprocess.TimeoutExpired:
            raise LabError(f"it has not ended after {timeout:.0f} s") from None

    def get(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise LabError(str(error)) from None


class _Listener:
    """Makes a file when the first sample comes: the program waits for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: list[float] = []

    def sample(self, _key: Key, value: float) -> None:
        self.values.append(value)
        self.path.touch()

    def failure(self, _key: Key, _message: str) -> None:
        raise AssertionError


_KEY = '["warm", "acquire", "ms"]'
_WAITS = f"""
import os, sys, time
print('{{"key": {_KEY}, "value": 1.5}}', flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print('{{"key": {_KEY}, "value": 2.5}}')
print('{{"environment": {{"kernel": "6"}}}}')
print('{{"end": true}}')
"""


def test_a_sample_is_kept_while_the_next_one_is_taken(tmp_path: Path) -> None:
    listener = _Listener(tmp_path / "kept")
    argv = [sys.executable, "-c", _WAITS, str(listener.path)]
    found = following.taken(_Here(), argv, Board(listener), "warm of blockfile", 60, directory=str(tmp_path))  # type: ignore[arg-type]
    assert listener.values == [1.5, 2.5]
    assert (found.complete, found.environment) == (True, {"kernel": "6"})


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (f"""print('{{"key": {_KEY}, "value": 1.5}}'); raise SystemExit("out of snapshots")""", Unavailable, "out of snapshots"),
        (f"""print('{{"key": {_KEY}, "value": 1.5}}', flush=True); import os; os._exit(7)""", Unavailable, "ended with status 7"),
        (f"""print('{{"key": {_KEY}, "value": 1.5}}'); print("hello")""", BadContent, "no sample: 'hello'"),
        (f"""print('{{"key": {_KEY}, "value": 1.5}}', flush=True); import time; time.sleep(600)""", Unavailable, "has not ended"),
    ],
)  # fmt: skip
def test_what_was_measured_stays_when_a_block_does_not_end_well(
    tmp_path: Path, program: str, error: type[Exception], message: str
) -> None:
    listener = _Listener(tmp_path / "kept")
    with pytest.raises(error, match=message):
        following.taken(_Here(), [sys.executable, "-c", program], Board(listener), "warm", 5, directory=str(tmp_path))  # type: ignore[arg-type]
    assert listener.values == [1.5]


# -- base sizes ------------------------------------------------------------------------------------------------------


class _Containerd:
    """A lab's containerd that only notes what is done with it."""

    def __init__(self) -> None:
        self.config = b'pool_name = "pool"\nbase_image_size = "128MB"\n'
        self.done: list[str] = []

    def get(self, _path: str) -> bytes:
        return self.config

    def put(self, _path: str, data: bytes) -> None:
        self.config = data

    def restart_containerd(self) -> None:
        self.done.append(self.config.decode().split('"')[3])

    def import_image(self, archive: str, *, namespace: str, timeout: float) -> None:
        assert timeout
        self.done.append(f"{archive} in {namespace}")


def test_each_base_size_has_a_namespace_and_is_unpacked_once() -> None:
    place = _Containerd()
    found = bases.Bases(place, "hello.tar")  # type: ignore[arg-type]
    for gigabytes in (0, 1, 1, 10, 0, 0, 1):
        found.use(gigabytes)
    assert place.done == [
        "1GB", "hello.tar in bench-base-1", "10GB", "hello.tar in bench-base-10", "128MB", "1GB",
    ]  # fmt: skip


# -- blocks ----------------------------------------------------------------------------------------------------------


def _block(
    scenario: str, where: str, levels: Sequence[int], first: int, rounds: int, snapshotter: str = "devmapper"
) -> Block:
    cells = tuple(Cell(scenario, "cache", "hello", level, where, snapshotter, "") for level in levels)
    return Block(World(where, snapshotter), scenario, 0, first, rounds, cells, 1.0)


_VM = containerd_plan.WORLDS[-1]


def test_levels_take_turns_in_another_order_in_each_block() -> None:
    blocks = [_block("base-size", "containerd", (1, 10, 100), first, 5) for first in (0, 5, 10)]
    orders = [[each.siblings for each in worlds.in_containerd(block, _VM)] for block in blocks]
    assert orders == [[1, 10, 100], [100, 10, 1], [10, 100, 1]]


def test_the_machine_is_given_more_time_before_a_block_counts_as_stuck() -> None:
    block = _block("first", "containerd", (32,), 0, 12)._replace(guess=60.0)
    [native], [emulated] = (worlds.in_containerd(block, world) for world in (containerd_plan.WORLDS[0], _VM))
    assert emulated.timeout > 5 * native.timeout > 5 * block.guess


def test_siblings_are_started_once_for_all_samples_of_a_block() -> None:
    found = worlds.in_containerd(_block("siblings", "containerd", (30,), 15, 15), _VM)
    assert [(each.first, each.rounds, each.per_round, each.siblings) for each in found] == [(1, 1, 15, 30)]


def test_a_burst_of_prepares_is_as_large_as_its_level() -> None:
    world = snapshotter_plan.COMPARED[-1]
    found = worlds.in_snapshotter(_block("burst", "snapshotter", (32,), 0, 6), world)
    assert (found.group, found.many, found.rounds) == ("crowd", 32, 6)
    assert found.contenders == ("devmapper", "thin")


def test_every_cell_of_the_lab_and_of_hardware_can_run_where_it_says() -> None:
    for name in ("lab", "hardware"):
        for block in plan.load(name).blocks():
            if block.world.where == "containerd":
                known = (*containerd_plan.WORLDS, *containerd_plan.FURTHER)
                assert block.world.snapshotter in {each.snapshotter for each in known}
                assert worlds.in_containerd(block, known[0])
            elif block.world.where == "snapshotter":
                assert block.world.snapshotter in {each.snapshotter for each in snapshotter_plan.COMPARED}


def test_a_world_that_the_lab_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(InvalidArgument, match="cannot measure zfs"):
        worlds._known(containerd_plan.WORLDS, "zfs", lambda each: (each.snapshotter,))


@pytest.mark.parametrize(
    ("name", "inside"), [("", True), ("containerd", True), ("devmapper", True), ("containerd:devmapper", True), ("snapshotter", False), ("erofs", False)]
)  # fmt: skip
def test_worlds_by_name(name: str, inside: bool) -> None:
    assert plan.within(World("containerd", "devmapper"), name) is inside


# -- what is compared ------------------------------------------------------------------------------------------------


def test_base_sizes_and_numbers_of_layers_are_compared_with_the_least() -> None:
    sizes = [Key(f"base-size, {size} GB", "prepare", "ms", "hello", None, "devmapper") for size in (10, 1, 100)]
    images = [
        Key("layers, whole", "acquire", "ms", f"layers-{name}", "view", "erofs")
        for name in ("1-first", "20-first", "20-last")
    ]
    values = tuple(map(float, range(10)))
    series = {
        key: Series(key, values, {}, "", (), (), tuple((value,) for value in values)) for key in (*sizes, *images)
    }
    found = comparing.pairs(Results([], [], series, [], 0))
    assert [pair.name for pair in found] == [
        (sizes[1], sizes[0]),
        (sizes[1], sizes[2]),
        (images[0], images[1]),
        (images[0], images[2]),
    ]


def test_runtimes_are_compared_with_the_floor_and_snapshotters_within_their_containerd() -> None:
    def task(image: str, strategy: str | None, runtime: str) -> Key:
        return Key("warm", "task_create_start", "ms", image, strategy, "blockfile", f"io.containerd.{runtime}", 1, 0)

    ours, floor, other = (
        task("hello", "cache", "unikeel.v2"),
        task("busybox", None, "runc.v2"),
        task("busybox", None, "x.v1"),
    )
    blockfile, file, devmapper, thin = (
        Key("serial", "prepare", "ms", snapshotter=name, concurrency=1)
        for name in ("blockfile", "file", "devmapper", "thin")
    )
    keys = (ours, floor, other, blockfile, file, devmapper, thin)
    series = {
        key: Series(key, tuple(map(float, range(number, 10 + number))), {}, "", (), ())
        for number, key in enumerate(keys)
    }
    found = comparing.pairs(Results([], [], series, [], 0))
    assert [pair.name for pair in found] == [(floor, ours), (floor, other), (blockfile, file), (devmapper, thin)]
    said = wording.difference(series[floor], series[ours], Difference(2.0, None, 0.01, -1))
    assert said.endswith(
        "hello under unikeel.v2 by `cache` takes 2.00  times as much as busybox under runc.v2 (p = 0.010)."
    )
    said = wording.difference(series[devmapper], series[thin], Difference(0.5, None, 0.01, 1))
    assert said.startswith("prepare (serial): devmapper takes 2.00  times as much as thin")


def test_what_was_not_taken_in_turn_is_compared_by_stretches(tmp_path: Path) -> None:
    """Thirty samples in two stretches are two, whatever their number: the host was busy in one of the four, and that is no difference between siblings and none."""
    keys = [Key("siblings", "ready", "ms", "hello", "cache", "file", "crun", 1, siblings) for siblings in (0, 30)]
    path = str(tmp_path / "few.jsonl")
    with Journal(path, campaign(["cache"], 30)) as journal:
        for block in range(2):
            for key in keys:
                for number in range(15):
                    journal.sample(key, number + (100.0 if (block, key.siblings) == (0, 0) else 10.0))
            journal.write({"done": str(block)})
    found = read([path])
    assert [(len(series.values), series.by_block.values) for series in found.series.values()] == [
        (30, (107.0, 17.0)),
        (30, (17.0, 17.0)),
    ]
    assert comparing.pairs(found) == []


def test_a_difference_that_every_stretch_has_is_found(tmp_path: Path) -> None:
    keys = [Key("siblings", "ready", "ms", "hello", "cache", "file", "crun", 1, siblings) for siblings in (0, 30)]
    path = str(tmp_path / "many.jsonl")
    with Journal(path, campaign(["cache"], 30)) as journal:
        for block in range(6):
            for key in keys:
                for number in range(5):
                    journal.sample(key, number + block / 10 + (10.0 if key.siblings else 20.0))
            journal.failure(keys[0], "the guest was not ready in time")
            journal.write({"done": str(block)})
    [pair] = comparing.pairs(read([path]))
    assert pair.difference.significant
    assert pair.first.by_block.attempts == 6
