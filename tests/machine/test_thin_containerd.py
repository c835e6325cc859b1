"""containerd's own checks of a snapshotter, on the store of thin devices, through a real containerd; the daemon that serves it is started before."""

from __future__ import annotations

import os

from unikeel.testing.containerd_suite import ContainerdSuite, Snapshotter
from unikeel.testing.remote_snapshots import RemoteSnapshots

_number = iter(range(1, 1 << 20))


class TestSuiteThroughContainerd(ContainerdSuite):
    """The 21 checks, each in a namespace of its own."""

    layers = 128 if os.environ.get("UNIKEEL_LONG") == "1" else 24

    def open_snapshotter(self, directory: str) -> Snapshotter:  # noqa: ARG002 - it is a namespace of containerd
        return RemoteSnapshots("/run/containerd/containerd.sock", "unikeel", f"suite-{next(_number)}")
