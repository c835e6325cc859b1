"""The pure parts of the power-cut tests: the log of writes, the journal and what follows from it, and a check that must find what is lost."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_support.power import journal, work, write_log
from lab_support.power.check import check
from lab_support.power.journal import COMMIT, PREPARE, REMOVE, SYNC, VIEW, WRITE, Snapshot, Step
from lab_support.power.stores import Opened, opened
from lab_support.power.write_log import DISCARD, FLUSH, FUA, MAGIC, MARK, Entry

_SECTOR = 512


def _log(*written: tuple[int, int, bytes, str]) -> bytes:
    """A log as the kernel writes it: sector, flags, content, and a mark's text."""
    parts = [struct.pack("<QQQI", MAGIC, 1, len(written), _SECTOR).ljust(_SECTOR, b"\0")]
    for sector, flags, content, text in written:
        head = struct.pack("<QQQQ", sector, len(content) // _SECTOR, flags, len(text)) + text.encode()
        parts.append(head.ljust(_SECTOR, b"\0"))
        if not flags & DISCARD:
            parts.append(content)
    return b"".join(parts)


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from((0, FLUSH, FUA, DISCARD)), st.integers(0, 3), st.integers(1, 255)),
        max_size=12,
    )
)
def test_a_replay_gives_what_was_written(writes: list[tuple[int, int, int, int]]) -> None:
    log, device = os.memfd_create("log"), os.memfd_create("device")
    try:
        os.ftruncate(device, 10 * _SECTOR)
        expected = bytearray(10 * _SECTOR)
        given_log = [
            (sector, flags, bytes([byte]) * _SECTOR * count, "") for sector, flags, count, byte in writes
        ]  # fmt: skip
        os.write(log, _log(*given_log))
        for entry, (sector, flags, content, _) in zip(write_log.entries(log), given_log, strict=True):
            write_log.replay(log, device, entry)
            new = bytes(len(content)) if flags & DISCARD else content
            expected[sector * _SECTOR : sector * _SECTOR + len(new)] = new
            assert os.pread(device, len(expected), 0) == bytes(expected)
    finally:
        os.close(log)
        os.close(device)


def test_marks_and_where_the_power_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    ones = b"1" * _SECTOR
    path.write_bytes(_log((0, 0, ones, ""), (0, MARK, b"", "begin"), *[(1, 0, ones, ""), (2, FLUSH, ones, "")] * 5, (0, MARK, b"", "end")))  # fmt: skip
    with path.open("rb") as file:
        found = list(write_log.entries(file.fileno()))
    assert [entry.text for entry in found if entry.flags & MARK] == ["begin", "end"]
    cuts = write_log.cuts(found, "begin", "end", 6)
    assert 3 <= len(cuts) <= 6
    assert sum(found[cut].flags == FLUSH for cut in cuts) >= 3
    assert min(cuts) > 1
    assert max(cuts) < len(found) - 1
    with pytest.raises(ValueError, match="no marks"):
        write_log.cuts(found, "begin", "finish", 1)


def test_no_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(_SECTOR))
    with path.open("rb") as file, pytest.raises(ValueError, match="no log"):
        list(write_log.entries(file.fileno()))
    path.write_bytes(_log((0, 0, b"1" * _SECTOR, ""))[: 2 * _SECTOR])
    with path.open("rb") as file, pytest.raises(ValueError, match="cut short"):
        write_log.replay(file.fileno(), -1, Entry(0, 0, _SECTOR, 0, 2 * _SECTOR, ""))


def test_a_journal_says_what_must_be_there() -> None:
    steps = [Step(PREPARE, "a"), Step(WRITE, "a", "", 3, 1), Step(COMMIT, "c", "a"), Step(PREPARE, "b", "c")]
    steps += [
        Step(WRITE, "b", "", 4, 2),
        Step(SYNC, "b"),
        Step(WRITE, "b", "", 4, 3),
        Step(WRITE, "b", "", 5, 4),
        Step(VIEW, "v", "c"),
        Step(REMOVE, "v"),
    ]
    lines = [journal.line(step, done=done) for step in steps for done in (False, True)]
    assert journal.possible(journal.read(lines)) == [
        {"c": Snapshot("committed", "", {3: 1}, {3: 1}), "b": Snapshot("active", "c", {3: 1, 4: 3, 5: 4}, {3: 1})}
    ]
    cut = journal.read([*lines[:-1], lines[-1][:-3]])
    assert cut.pending == Step(REMOVE, "v")
    without, with_it = journal.possible(cut)
    assert set(without) - set(with_it) == {"v"}
    assert journal.leaves(without) == ["b", "v"]


@given(st.integers(0, 1 << 16))
def test_chosen_calls_can_be_carried_out(seed: int) -> None:
    numbers, state = random.Random(seed), journal.after([])
    for count in range(1, 120):
        journal.apply(state, work.chosen(numbers, state, count))
    assert len(state) <= 25


def _worked(root: Path, steps: int = 60) -> str:
    path = str(root / "journal")
    with opened("file", str(root)) as found:
        work.work(found.store, path, steps, 5, lambda _: None)
    return path


def test_what_is_as_it_must_be_passes(tmp_path: Path) -> None:
    path = _worked(tmp_path)
    with opened("file", str(tmp_path)) as found:
        assert check(found, path) == []
        assert list(found.store.list()) == []


def _committed_with_content(path: str) -> tuple[str, int]:
    with open(path, encoding="utf-8") as file:
        [state] = journal.possible(journal.read(file))
    return next(
        (name, slot) for name, one in state.items() if one.kind == "committed" for slot in one.content
    )  # fmt: skip


def test_lost_content_is_found(tmp_path: Path) -> None:
    path = _worked(tmp_path)
    with opened("file", str(tmp_path)) as found:
        name, slot = _committed_with_content(path)
        image = found.store.disk(name).path
        os.chmod(image, 0o600)
        with open(image, "r+b") as file:
            file.seek(journal.SLOTS_AT + slot * journal.SLOT_BYTES)
            file.write(b"lost")
        problems = check(found, path)
    assert any(f"slot {slot} of {name} (committed) has lost" in problem for problem in problems)


def test_a_lost_snapshot_is_found(tmp_path: Path) -> None:
    path = _worked(tmp_path)
    with opened("file", str(tmp_path)) as found:
        last = [info.name for info in found.store.list()][-1]
        found.store.remove(last)
        [problem] = check(found, path)
    assert "must be" in problem


def test_what_is_left_behind_is_found(tmp_path: Path) -> None:
    path = _worked(tmp_path)
    with opened("file", str(tmp_path)) as found:
        leftover = Opened(found.store, found.is_dead, lambda: ["12"])
        assert check(leftover, path) == ["left behind: 12"]
