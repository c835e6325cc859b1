"""The snapshotters' benchmark: what is planned, its image, what is read of the kernel, the promises and the report, from rows that are made up."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest

from unikeel.bench.promises import Verdict
from unikeel.bench.rows import Board, Document, Key, Row
from unikeel.bench.snapshotter import layered, ours
from unikeel.bench.snapshotter.inside import processes
from unikeel.bench.snapshotter.inside.session import Contender, Request, spares
from unikeel.bench.snapshotter.main import arguments, planned
from unikeel.bench.snapshotter.plan import GROUPS, METRICS, SIZE_MIB, VM, WORLDS, Plan
from unikeel.bench.snapshotter.promises import TIMES, missed, verdicts
from unikeel.bench.snapshotter.report import render
from unikeel.config import load
from unikeel.engine.layout import snapshot_socket
from unikeel.errors import InvalidArgument, Unavailable
from unikeel.records.database import Database
from unikeel.snapshots.metadata import prepare_tables

_NAMES = {name for world in WORLDS for name in world.contenders}


def test_every_metric_has_groups_that_exist() -> None:
    assert {name for groups in METRICS.values() for name in groups} == {group.name for group in GROUPS}


def test_worlds_are_named_after_containerd_s_own() -> None:
    assert [(world.builtin, world.file_system) for world in WORLDS] == [
        ("blockfile", "ext4"),
        ("blockfile", "xfs"),
        ("devmapper", "ext4"),
    ]


def test_a_whole_run_has_enough_samples() -> None:
    plan = Plan()
    assert plan.worlds() == list(WORLDS)
    for world in WORLDS:
        rounds = {group.name: 0 for group in GROUPS}
        for block in plan.blocks(world):
            rounds[block.group] += block.rounds
            assert block.timeout >= 180
        assert rounds["serial"] >= 50
        assert rounds["crowd"] >= 10
        assert rounds["unpack"] >= 3
        assert rounds["hundred"] >= (3 if world.where == VM else 0)


def test_one_group_alone() -> None:
    parsed = arguments(["--only", "prepare", "--group", "full", "--snapshotter", "thin"])
    plan = planned(parsed)
    assert [block.group for world in plan.worlds() for block in plan.blocks(world)] == ["full"]
    with pytest.raises(SystemExit):
        arguments(["--only", "unpack", "--group", "full"])


def test_a_quick_run_is_small() -> None:
    plan = Plan(quick=True)
    [world] = plan.worlds()
    blocks = list(plan.blocks(world))
    assert max(block.rounds * block.many for block in blocks if block.group != "full") <= 5
    assert [world.where for world in Plan(quick=True, where=VM).worlds()] == [VM]


def test_only_ours_are_asked_to_keep_thousands() -> None:
    for world in WORLDS:
        for block in Plan(full=70).blocks(world):
            if block.group == "full":
                assert (set(block.contenders) <= set(world.ours), block.many, block.few) == (True, 70, 50)
            else:
                assert block.contenders == world.contenders


def test_options() -> None:
    asked = planned(arguments(["--only", "unpack", "--samples", "3", "--snapshotter", "devmapper", "--full", "9"]))
    assert asked == Plan(("unpack",), "", ("devmapper",), 3, 9)
    [world] = asked.worlds()
    assert [(block.group, block.contenders, block.rounds) for block in asked.blocks(world)] == [
        ("unpack", ("devmapper",), 3)
    ]
    for wrong in (["--samples", "-1"], ["--only", "exec"], ["--where", "vm", "--snapshotter", "blockfile"]):
        with pytest.raises(SystemExit):
            arguments(wrong)


def test_blocks_go_on_where_the_one_before_ended() -> None:
    blocks = [block for block in Plan(samples=12).blocks(WORLDS[2]) if block.group == "serial"]
    assert [(block.first, block.rounds) for block in blocks] == [(0, 10), (10, 2)]


def test_the_image_is_always_the_same() -> None:
    first, second = layered.made(16), layered.made(16)
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first.archive)) as tar:

        def blob(digest: str) -> bytes:
            file = tar.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert file is not None
            content = file.read()
            assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:")
            return content

        index = tar.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        layers = [gzip.decompress(blob(layer["digest"])) for layer in manifest["layers"]]
    assert [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers] == config["rootfs"]["diff_ids"]
    sizes = []
    for number, layer in enumerate(layers):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            [member] = tar.getmembers()
            assert member.name == f"{layered.FILE}{number}"
            sizes.append(member.size)
    assert sum(sizes) == 16 << 20
    assert len(sizes) == 5


def test_a_request_there_and_back() -> None:
    contender = Contender("thin", "thin", "/run/x.sock", "pool", "sha256:1")
    fields = {"group": "serial", "image": "i", "first": 3, "rounds": 2, "many": 1, "few": 0, "samples": 0}
    request = Request.from_text(json.dumps({**fields, "patience": 0.5, "contenders": [list(contender)]}))
    assert request.contenders == (contender,)
    assert list(request.numbers) == [3, 4]
    for wrong in ("", "[]", '{"group": "serial"}', '{"contenders": [["a"]]}'):
        with pytest.raises(InvalidArgument):
            Request.from_text(wrong)


def test_what_a_process_has_used() -> None:
    before = processes.used(os.getpid())
    sum(range(300_000))
    spent = processes.used(os.getpid()).since(before)
    assert spent.cpu_ms >= 0
    assert spent.written >= 0


def test_who_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(Unavailable, match="nobody listens"):
        processes.listener(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert processes.listener(path) == os.getpid()


def test_ours_are_configured_as_they_are_named(tmp_path: Path) -> None:
    assert set(ours.KINDS) == {name for world in WORLDS for name in world.ours}
    for name in ours.KINDS:
        path = tmp_path / f"{name}.toml"
        path.write_text(ours.configuration(name))
        config = load(str(path))
        assert ours.socket(name) == snapshot_socket(config.root, config.run_root, "containerd")
        assert os.path.join(config.root, "state.db") == ours.records(name)
        assert ours.pool(name) == (f"unikeel-{config.snapshotter_store}" if name.startswith("thin") else "")
        assert (config.snapshotter_spares, config.snapshotter_empty_size) == (ours.KINDS[name].spares, SIZE_MIB << 20)
        assert ours.socket(name) in ours.plugin(name)


def test_counting_spares(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with pytest.raises(Unavailable, match="does not tell"):
        spares(path)
    database = Database(path)
    prepare_tables(database)
    assert spares(path) == 0
    with database.write() as cursor:
        cursor.execute("INSERT INTO snapshot_spares (id, origin) VALUES (7, 3)")
    assert spares(path) == 1
    database.close()


def _board(factor: float) -> Board:
    """A run in which containerd's own takes so many times what is hoped for."""
    board = Board()
    for times in TIMES:
        key = Key(times.scenario, times.metric, "ms", snapshotter=times.base, concurrency=times.concurrency)
        ours = key._replace(snapshotter=times.ours)
        if not board.series(key).samples:
            board.series(key).samples += [1000.0] * 30
        value = 1000.0 / (max(times.required, times.goal) * factor)
        board.series(ours).samples[:] = [min([value, *board.series(ours).samples])] * 30
    for siblings, value in ((50, 10.0), (5000, 11.0 / factor)):
        key = Key("full", "prepare", "ms", snapshotter="thin", concurrency=1, siblings=siblings)
        board.series(key).samples += [value] * 30
    return board


def _not(kept: bool | None, rows: list[Row]) -> list[Verdict]:
    return [verdict for verdict in verdicts(rows) if verdict.kept is not kept]


def test_promises() -> None:
    assert _not(True, _board(1.01).rows()) == []
    board = _board(0.01)
    board.series(Key("serial", "view", "ms", snapshotter="thin")).fail("no")
    assert _not(False, board.rows()) == []
    assert _not(None, []) == []


def test_goals_are_not_required() -> None:
    board = _board(1.01)
    assert not missed(board.rows())
    series = board.series(Key("serial", "prepare", "ms", snapshotter="thin", concurrency=1))
    series.samples[:] = [1000.0 / 6] * 30
    assert [verdict.promise for verdict in verdicts(board.rows()) if verdict.kept is False] == [
        "devmapper / thin: Prepare with a parent: the goal, 8"
    ]
    assert not missed(board.rows())
    series.samples[:] = [1000.0 / 4] * 30
    assert missed(board.rows())


def test_the_text() -> None:
    board = _board(1.0)
    board.series(Key("serial", "unpack", "ms", snapshotter="thin", concurrency=1)).fail("no room")
    text = render(Document({"load": [0.5]}, board.rows()), board.failures(), ["look", "look"])
    lines = text.splitlines()
    assert lines[0] == "         load  0.5"
    [head] = [line.split() for line in lines if line.startswith("metric ")]
    assert "runtime" not in head
    assert "  unpack, serial, thin: 1 failed, the first: no room" in lines
    assert text.count("look") == 1
    assert "kept  devmapper / thin: Prepare with a parent: at least 5" in text
    assert "MISSED  no sample failed" in text


def test_promises_are_about_what_is_measured() -> None:
    named = {name for times in TIMES for name in (times.base, times.ours)}
    assert named >= _NAMES
