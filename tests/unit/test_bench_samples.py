"""What decides whether a sample counts, and the facts about the host, each on texts and values that are made up."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from unikeel.bench import environment
from unikeel.bench import main as bench
from unikeel.bench.contents import boot_files
from unikeel.bench.main import main
from unikeel.bench.plan import IMAGES, Plan, Progress
from unikeel.bench.quiet import Quiet, idle_share
from unikeel.bench.rows import Board, Key
from unikeel.bench.scenarios import acquire, starts
from unikeel.bench.scenarios.imports import later_imports
from unikeel.bench.scenarios.spans import measure as measure_spans
from unikeel.bench.stage import Stage
from unikeel.engine.timeline import Timeline
from unikeel.errors import BadContent, NotFound

_EXPECTED = {"kernel": "aa"}
_ANSWER = {"ns": 1, "prepare_ns": 1, "strategy": "cache", "hit": True, "fallbacks": [], "sha256": _EXPECTED}


@pytest.mark.parametrize(
    ("changes", "scenario", "verdict"),
    [
        ({}, "warm", ""),
        ({"hit": False}, "first", ""),
        ({"hit": False}, "warm", "not a hit, although it was acquired before"),
        ({}, "first", "a hit, although nothing was kept"),
        ({"sha256": {"kernel": "ab"}}, "warm", "the bytes read back are not the image's"),
        ({"sha256": {}}, "warm", "the bytes read back are not the image's"),
        ({"strategy": "copy", "fallbacks": [["cache", "no"]]}, "warm", "copy served instead (cache: no)"),
        ({"error": "no such image"}, "warm", "no such image"),
    ],
)
def test_what_counts_as_a_sample_of_acquire(changes: dict[str, object], scenario: str, verdict: str) -> None:
    assert acquire.judge(_ANSWER | changes, "cache", _EXPECTED, scenario) == verdict


def _timeline(strategy: str = "cache", *, hit: bool = True) -> Timeline:
    timeline = Timeline(start=1_000_000)
    timeline.add("interpreter", 1_000_000, 11_000_000)
    timeline.add("import", 11_000_000, 31_000_000)
    timeline.add("boot-files.prepare", 31_000_000, 33_000_000)
    timeline.add("boot.acquire", 40_000_000, 40_500_000, {"strategy": strategy, "hit": hit})
    timeline.add("exec", 80_000_000, 101_000_000)
    timeline.add("ready", 101_000_000, 401_000_000)
    return timeline


def test_the_figures_of_a_start() -> None:
    sample = starts.check(_timeline(), "cache")
    assert sample == starts.Sample(exec=100.0, imports=30.0, ready=400.0, acquire=0.5, prepare=2.0)


def test_what_is_no_sample_of_a_start() -> None:
    with pytest.raises(starts.NoSample, match="copy served instead"):
        starts.check(_timeline("copy"), "cache")
    with pytest.raises(starts.NoSample, match="not a hit"):
        starts.check(_timeline(hit=False), "cache")
    assert starts.check(_timeline("copy", hit=False), "copy").exec == 100.0
    with pytest.raises(starts.NoSample, match="no step 'interpreter'"):
        starts.check(Timeline(), "cache")


def test_imports_are_counted_from_the_first_module_of_ours_on_to_the_exec() -> None:
    lines = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 | site
import time:       300 |        300 |   unikeel
import time:        40 |         40 |     json
import time:       200 |        240 |   unikeel.cli.commands
import time:       999 |       1539 | unikeel.cli.main
a notice
import time:       500 |        500 | ctypes
import time:        70 |         70 | unikeel.sandbox.controlling
import time:      9000 |       9000 | asyncio"""
    assert later_imports(lines.splitlines()) == (300 + 40 + 200 + 500) / 1000


def _archive(path: str, layers: list[dict[str, bytes]]) -> None:
    blobs: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, str]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}"}

    packed = [blob(_tar(layer)) for layer in layers]
    manifest = blob(json.dumps({"layers": packed}).encode())
    blobs["index.json"] = json.dumps({"manifests": [manifest]}).encode()
    with open(path, "wb") as file:
        file.write(_tar(blobs))


def _tar(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return output.getvalue()


def test_the_boot_files_of_an_archive_are_those_of_the_last_layer(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "image.tar")
    _archive(path, [{"boot/k": b"old", "boot/i": b"initrd"}, {"./boot/k": b"new"}])
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in (("kernel", b"new"), ("initrd", b"initrd"))}
    assert boot_files(path, {"kernel": "/boot/k", "initrd": "/boot/i"}) == digests
    with pytest.raises(BadContent, match="has no /boot/x"):
        boot_files(path, {"kernel": "/boot/x"})


def test_facts_about_the_host() -> None:
    assert environment.cpu("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert environment.cpu("") is None
    assert environment.memory_mib("MemTotal:       24683956 kB\n") == 24105
    assert environment.memory_mib("") is None
    mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n30 21 0:26 / /dev/shm rw shared:2 - tmpfs tmpfs rw\nbad\n"
    assert environment.file_system(mounts, "/dev/shm/x") == "tmpfs"
    assert environment.file_system(mounts, "/dev/shmem") == "ext4"
    assert environment.file_system("", "/x") is None
    assert environment.first_line(["/nonexistent"]) is None
    assert environment.first_line(["false"]) is None


def test_waiting_for_a_quiet_host_ends_with_the_noise_or_with_patience() -> None:
    busy, idle = "cpu  {0} 0 0 0 0 0 0 0 0 0", "cpu  5000 0 0 {0} 0 0 0 0 0 0"
    assert idle_share(busy.format(1), busy.format(9)) == 0.0
    assert idle_share(idle.format(1), idle.format(9)) == 1.0
    assert idle_share(busy.format(1), busy.format(1)) == 1.0
    clock = iter(range(1, 1000))
    slept: list[float] = []

    def stat() -> str:
        now = next(clock)
        return (busy if now < 8 else idle).format(now)

    quiet = Quiet(10, stat=stat, sleep=slept.append, window=1)
    quiet.wait()
    assert (len(slept), quiet.waited, quiet.noisy) == (5, 4.0, 0)
    impatient = Quiet(3, stat=lambda: busy.format(next(clock)), sleep=slept.append, window=1)
    impatient.wait()
    impatient.wait()
    assert impatient.describe() == {"patience_s_per_round": 3, "waited_s": 6.0, "rounds": 2, "not_quiet": 2}


def test_a_plan() -> None:
    assert Plan().count(30) == 30
    assert Plan(quick=True).count(30) == 3
    assert Plan(samples=7, quick=True).count(30) == 7
    assert Plan().of(IMAGES) == IMAGES
    assert Plan(quick=True).of(("nginx", "hello")) == ("hello",)
    assert Plan(images=("nginx",)).of(("hello", "nginx")) == ("nginx",)
    assert not Plan(metrics=("exec",)).wants("acquire", "span")


def test_a_missing_sample_is_named_with_the_command_that_makes_it(
    tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="make samples"):
        Stage(str(tmp_path), str(tmp_path), ("hello",))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    output = os.path.join(str(tmp_path), "out.json")
    assert main(["--quick", "--sample-images", str(tmp_path), "--root", str(tmp_path), "--output", output]) == 66
    errors = capsys.readouterr().err
    assert errors == f"bench: the sample image hello is missing ({tmp_path}/hello.tar) (run `make samples`)\n"
    assert os.listdir(str(tmp_path)) == []


def test_without_root_the_command_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["--quick"]) == 77
    assert capsys.readouterr().err.endswith("(run them as root)\n")


def test_the_spans_are_measured() -> None:
    board = Board()
    measure_spans(None, Plan(samples=2), board, Progress(shown=False))
    [row] = board.rows()
    assert (row.metric, row.unit, row.n, row.image) == ("span", "µs", 2, None)
    assert row.min is not None
    assert 0 < row.min < 1000


class _Bare:
    """A stage on which nothing stands."""

    def __init__(self, *_: object) -> None:
        self.engine = self.stage = self.services = self
        self.notices: list[str] = []
        self.quiet = Quiet(0)

    def load(self, _image: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("measured", [True, False])
def test_an_interrupted_run_keeps_what_it_has_measured(
    measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_stage: object, _plan: Plan, board: Board, progress: Progress) -> None:
        progress.at("starts of hello", 3, 30)
        if measured:
            board.series(Key("warm", "exec", "ms", "hello", "cache", "file", "crun", 1, 0)).add(100.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "Stage", _Bare)
    monkeypatch.setattr(environment, "describe", lambda _services: {})
    monkeypatch.setattr(bench, "_SCENARIOS", (SimpleNamespace(measure=measure),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["--output", str(tmp_path / "out.json")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == (["out.json.interrupted"] if measured else [])
    said = capsys.readouterr().err
    assert ("interrupted after starts of hello, 3 of 30" if measured else "nothing was written") in said
