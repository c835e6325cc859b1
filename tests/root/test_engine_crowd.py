"""Many starts of one image at once: its boot files are acquired once, all run, and afterwards nothing is left."""

from __future__ import annotations

import os

import pytest

from engine_stages import LONG, PATIENCE, STRATEGIES, Stage

#: qemu.qmp leaves sockets of conversations that failed to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_CROWD = 32 if LONG else 8
_PATIENCE = PATIENCE * 5

#: What a process passes that gets the files for all others; the strategies view and copy do it for each container.
_FILLS = {
    "cache": ("boot.cache.fill", 1),
    "shared-view": ("boot.mount.held", 1),
    "view": ("boot.view.made", _CROWD),
    "copy": ("boot.copy.copied", _CROWD),
}


@pytest.fixture
def stage(tmp_path: os.PathLike[str]) -> Stage:
    return Stage(str(tmp_path), config="[network]\ndefault = 'none'\n")


@pytest.mark.parametrize("strategy", STRATEGIES if LONG else ["cache", "shared-view"])
def test_many_at_once(stage: Stage, strategy: str) -> None:
    before = stage.warm_up()
    with stage.engine() as engine:
        engine.collect_boot_files(everything=True)  # so that the crowd has to fetch them
    trace = os.path.join(stage.directory, "trace")
    names = [f"c{number}" for number in range(_CROWD)]
    children = [
        stage.command(
            f"strategy={strategy}", f"create={name}", "pause", f"ready={name}", "say=runs", "pause", f"force={name}",
            UNIKEEL_FAILPOINT_TRACE=trace,
        )
        for name in names
    ]  # fmt: skip
    pipes = [(child.stdin, child.stdout) for child in children]
    try:
        for into, out in pipes:
            assert into is not None
            assert out is not None
            stage.idents.append(out.readline().split()[1])
            assert out.readline() == "paused\n"
        for into, _ in pipes:
            assert into is not None
            into.write("go\n")
            into.flush()
        assert [out.readline() for _, out in pipes if out is not None] == ["runs\n"] * _CROWD
        with stage.engine() as engine:
            running = engine.containers()
            assert sorted(container.name for container in running) == sorted(names)
            assert {container.record.strategy for container in running} == {strategy}
            uids = {os.stat(f"/proc/{container.record.pid}").st_uid for container in running}
            assert len(uids) == _CROWD
    finally:
        ends = [child.communicate("\n", timeout=_PATIENCE)[0] for child in children]
    assert [child.returncode for child in children] == [0] * _CROWD, ends
    with open(trace, encoding="utf-8") as file:
        passed = file.read().split()
    point, times = _FILLS[strategy]
    assert passed.count(point) == times
    assert passed.count("start.running") == _CROWD
    assert before.leftovers(stage.idents) == []
