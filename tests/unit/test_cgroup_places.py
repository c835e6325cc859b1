"""Where the cgroup of a file server is, beside that of its guest's monitor."""

from __future__ import annotations

import pytest

from unikeel.sandbox.cgroups import beside, path_of


@pytest.mark.parametrize(
    ("monitor", "wanted", "path"),
    [
        ("", "/unikeel-c.fs0", "/unikeel-c.fs0"),
        ("/c", "/unikeel-c.fs0", "/unikeel-c.fs0"),
        ("/kubepods/pod1/c/", "/kubepods/pod1/unikeel-c.fs0", "/kubepods/pod1/unikeel-c.fs0"),
        ("default/c", "/default/unikeel-c.fs0", "/default/unikeel-c.fs0"),
        (
            "kubepods-pod1.slice:cri-containerd:c",
            "kubepods-pod1.slice:unikeel:c.fs0",
            "/kubepods.slice/kubepods-pod1.slice/unikeel-c.fs0.scope",
        ),
    ],
)
def test_beside_the_monitor_in_the_form_that_the_caller_uses(monitor: str, wanted: str, path: str) -> None:
    assert beside(monitor, "c.fs0") == wanted
    assert path_of(wanted) == path
