"""What the benchmark under containerd counts as left behind: not what another lab on the same host has just made."""

from __future__ import annotations

import os

from unikeel.bench.containerd.inside.census import is_ours
from unikeel.kernel import loop


def test_a_loop_device_is_ours_if_its_file_is_the_one_that_has_its_path_here(tmp_path: os.PathLike[str]) -> None:
    path, other = os.path.join(tmp_path, "snapshot"), os.path.join(tmp_path, "other")
    for name in (path, other):
        with open(name, "wb") as file:
            file.truncate(1 << 20)
    with open(path, "rb") as file:
        device = loop.attach(file.fileno())
    try:
        assert is_ours(device.path, path)
        assert not is_ours(device.path, other)
        assert not is_ours(device.path, os.path.join(tmp_path, "in another world"))
    finally:
        device.close()
