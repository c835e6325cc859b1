"""Images come and go through containerd on our snapshotter: afterwards as much is taken as before. 200 of them with ``UNIKEEL_LONG=1``."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TypeVar

import pytest

from lab.machine import Machine
from lab.native import Native
from lab.place import Place
from lab_support.waiting import PATIENCE, until
from lab_support.world import LONG
from unikeel.bench.snapshotter import ours

T = TypeVar("T")

_COUNT, _KEPT = (200, 8) if LONG else (4, 2)
_PYTHON = ["/opt/unikeel/bin/python", "-m", "lab_support.soak"]
_ENVIRONMENT = {"PYTHONPATH": "/unikeel/tests"}
_SECONDS = 7200.0 if LONG else 300.0
_TREES = 8
#: Bytes that the images' files take.
_FILES = ["sh", "-c", "du -s --block-size=1 --exclude='*.db*' /var/lib/unikeel/file/snapshots | cut -f1"]


def soak(place: Place, name: str, count: int, kept: int) -> None:
    """So many images by a snapshotter, of which so many are there at a time."""
    argv = [*_PYTHON, name, str(count), str(kept)]
    place.run(argv, env=_ENVIRONMENT, timeout=_SECONDS * place.slowness)


def given_back(place: Place, name: str, usage: Callable[[], T], same: Callable[[T, T], bool] = operator.eq) -> None:
    """Images come and go; what is taken is what it was after the first one, which brings what stays: an empty file system, databases."""
    soak(place, name, 1, 0)
    before = usage()
    soak(place, name, _COUNT, _KEPT)
    after = [before]

    def is_back() -> bool:
        after[0] = usage()
        return same(before, after[0])

    until(is_back, f"{before} is taken again", PATIENCE * place.slowness, 0.5)


@pytest.mark.parametrize("root", ["trixie", "sid"] if LONG else ["sid"])
def test_files_are_given_back(root: str) -> None:
    with Native(root, containerd=False) as place:
        ours.start(place, "file")
        place.start_containerd("blockfile", image_mib=64, cri=False, extra=ours.plugin("file"))
        given_back(place, "file", lambda: int(place.run(_FILES).stdout))


def is_same_pool(before: str, after: str) -> bool:
    """Whether a thin pool's status tells of as many blocks; the trees of the metadata may be cut another way for the same content."""
    (metadata, data), (metadata_now, data_now) = (map(_used, status.split()[4:6]) for status in (before, after))
    return data == data_now and abs(metadata - metadata_now) <= _TREES


def _used(words: str) -> int:
    return int(words.partition("/")[0])


@pytest.mark.long
def test_a_thin_pool_is_given_back() -> None:
    with Machine() as place:
        ours.start(place, "thin")
        place.start_containerd("devmapper", image_mib=64, cri=False, extra=ours.plugin("thin"))
        status = ["dmsetup", "status", ours.pool("thin")]
        given_back(place, "thin", lambda: place.run(status).stdout, is_same_pool)
