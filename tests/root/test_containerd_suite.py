"""containerd's 21 checks on the store of files: in-process, and over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from served_snapshots import Served, file_store
from unikeel.testing.containerd_suite import ContainerdSuite, Snapshotter


class TestInProcess(ContainerdSuite):
    layers = 16  # 128 of them are in test_snapshot_mounted.py

    def open_snapshotter(self, directory: str) -> Snapshotter:
        return file_store(Path(directory))


class TestOverGrpc(ContainerdSuite):
    layers = 16  # 128 of them go through a containerd in tests/lab

    @pytest.fixture(autouse=True)
    def served(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """A store of this test's own, served."""
        directory = tmp_path_factory.mktemp("served")
        with Served(file_store(directory), directory) as self._served:
            yield

    def open_snapshotter(self, directory: str) -> Snapshotter:  # noqa: ARG002 - it has one
        return self._served.client()
