"""Private copies of files in a process's memory: found where they are, and page cache is none."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from unikeel.bench.campaign.embedded import duplicates
from unikeel.bench.campaign.embedded.duplicates import PAGE

_CONTENT = os.urandom(5 * PAGE + 100)


def test_a_copy_is_found_page_by_page_and_a_mapped_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(_CONTENT)
    known = duplicates.pages([_CONTENT])
    assert len(known) == 5
    before = duplicates.held(os.getpid(), known)  # the words above may lie at a page's beginning
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] == _CONTENT[0]
        assert duplicates.held(os.getpid(), known) == before
        with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory[8 * PAGE : 8 * PAGE + len(_CONTENT)] = _CONTENT
            assert duplicates.held(os.getpid(), known) == before + 5 * PAGE
            memory[9 * PAGE] ^= 1
            assert duplicates.held(os.getpid(), known) == before + 4 * PAGE


def test_empty_pages_are_nobody_s() -> None:
    assert duplicates.pages([bytes(7 * PAGE)]) == frozenset()
    assert duplicates.held(os.getpid(), frozenset()) == 0


def test_a_process_that_has_gone() -> None:
    with pytest.raises(OSError, match="No such"):
        duplicates.held(1 << 22, frozenset([b"x"]))
