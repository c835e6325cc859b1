"""Names of devices: noted on when somebody is about to use one, and taken away when nobody is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unikeel.kernel.devmapper import nodes


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(nodes, "DIRECTORY", str(tmp_path))
    (tmp_path / "one").symlink_to("../dm-7")
    os.utime(tmp_path / "one", (0, 0), follow_symlinks=False)
    return tmp_path


def test_a_name_that_was_touched_stays(directory: Path) -> None:
    assert nodes.touch("one")
    assert not nodes.withdraw("one", 3600)
    assert os.listdir(directory) == ["one"]
    assert nodes.withdraw("one", 0)
    assert os.listdir(directory) == []


def test_a_name_that_nobody_touched_goes(directory: Path) -> None:
    assert nodes.withdraw("one", 3600)
    assert os.listdir(directory) == []
    assert not nodes.touch("one")
    assert nodes.withdraw("one", 3600)


def test_a_name_from_the_future_is_old(directory: Path) -> None:
    """The clock was set back."""
    os.utime(directory / "one", (1 << 40, 1 << 40), follow_symlinks=False)
    assert nodes.withdraw("one", 3600)
