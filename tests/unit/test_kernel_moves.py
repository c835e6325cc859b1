"""Being ready to move processes into cgroups: where the lists are, and that nobody is moved anywhere else."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.kernel import moves
from unikeel.kernel.moves import expect_moves, process_lists, stay


def test_each_kind_of_hierarchy_has_its_place() -> None:
    places = "4:memory:/a/b\n3:cpu,cpuacct:/\n1:name=systemd:/user.slice\n0::/c\n"
    assert list(process_lists(places)) == [
        "/sys/fs/cgroup/memory/a/b/cgroup.procs",
        "/sys/fs/cgroup/cpu,cpuacct/cgroup.procs",
        "/sys/fs/cgroup/systemd/user.slice/cgroup.procs",
        "/sys/fs/cgroup/c/cgroup.procs",
        "/sys/fs/cgroup/unified/c/cgroup.procs",
    ]


def test_what_is_above_a_namespace_is_not_looked_for() -> None:
    assert list(process_lists("0::/../../a\n")) == []


@given(st.lists(st.text(st.characters(exclude_characters="\n:", codec="utf-8"))))
def test_no_path_leads_out_of_the_cgroups(names: list[str]) -> None:
    for path in process_lists("".join(f"1:cpu:/{name}\n" for name in names if "\r" not in name and name.isprintable())):
        assert os.path.normpath(path).startswith("/sys/fs/cgroup/")


def test_a_cgroup_that_we_are_in_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "cgroup.procs"
    path.write_text("1\n77\n")
    assert stay(str(path), 77)
    assert path.read_text() == "1\n77\n0"


@pytest.mark.parametrize("content", ["", "1\n777\n7\n"])
def test_another_cgroup_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cgroup.procs"
    path.write_text(content)
    assert not stay(str(path), 77)
    assert path.read_text() == content


def test_a_list_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not stay(str(tmp_path / "missing"), 77)


def test_the_process_stays_where_it_is() -> None:
    before = Path("/proc/self/cgroup").read_text()
    for _ in range(3):  # the first finds the list, the others know it
        expect_moves()
        assert moves._under_way.acquire(timeout=60)  # it is done
        moves._under_way.release()
    assert Path("/proc/self/cgroup").read_text() == before


def test_one_thread_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[object]()
    monkeypatch.setattr(moves, "start_new_thread", lambda function, _arguments: started.append(function))
    monkeypatch.setattr(moves, "_mover", moves._Mover())
    monkeypatch.setattr(moves, "_asked", Lock())
    for _ in range(2):
        expect_moves()
        moves._asked.acquire(blocking=False)  # as the thread would
        moves._under_way.release()
    assert len(started) == 1


def test_a_host_without_another_thread_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_function: object, _arguments: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(moves, "start_new_thread", refused)
    monkeypatch.setattr(moves._mover, "process", 0)
    expect_moves()
    assert not moves._under_way.locked()
