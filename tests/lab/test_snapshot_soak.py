"""Images come and go through containerd on our snapshotter: afterwards as much is taken as before. 200 of them with ``UNIKEEL_LONG=1``."""

from __future__ import annotations

import pytest

from lab.native import Native
from lab.place import Place
from lab_support.world import LONG
from unikeel.bench.snapshotter import ours

_COUNT, _KEPT = (200, 8) if LONG else (4, 2)
_PYTHON = ["/opt/unikeel/bin/python", "-m", "lab_support.soak"]
_ENVIRONMENT = {"PYTHONPATH": "/unikeel/tests"}
_SECONDS = 7200.0 if LONG else 300.0
#: Blocks that the images' files take.
_FILES = ["sh", "-c", "du -s --block-size=1 --exclude='*.db*' /var/lib/unikeel/file/snapshots | cut -f1"]


def soaked(place: Place, name: str, usage: list[str]) -> list[str]:
    """What was taken before, and after."""
    argv = [*_PYTHON, name, str(_COUNT), str(_KEPT), *usage]
    return place.run(argv, env=_ENVIRONMENT, timeout=_SECONDS * place.slowness).stdout.splitlines()


@pytest.mark.parametrize("root", ["trixie", "sid"] if LONG else ["sid"])
def test_files_are_given_back(root: str) -> None:
    with Native(root, containerd=False) as place:
        ours.start(place, "file")
        place.start_containerd("blockfile", image_mib=64, cri=False, extra=ours.plugin("file"))
        before, after = soaked(place, "file", _FILES)
        assert int(before) > 0
        assert after == before
