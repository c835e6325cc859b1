"""The tier ``root``: real mounts, loop devices, sandboxes and monitors. It needs root, and says so once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_TIER = os.environ.get(
    "UNIKEEL_TIER", ""
)  # as in tests/conftest.py, which cannot be imported from here: both are named conftest
_REASON = "the tests in tests/root need root"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root: skip this directory's tests, or, if the tier was asked for, run none at all."""
    mine = [item for item in items if _HERE in item.path.parents]
    if os.geteuid() == 0 or not mine:
        return
    if _TIER:
        raise pytest.UsageError(f"{_REASON}, and the tier {_TIER} was asked for: run it as root")
    for item in mine:
        item.add_marker(pytest.mark.skip(reason=_REASON))


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Unmount what a test leaves in its own directory, as those that kill processes do: pytest's later clean-up of that directory
    would fail on it, and with it a whole run."""
    yield
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    for point in reversed([point for point in points if point.startswith(f"{tmp_path}/")]):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=60)
