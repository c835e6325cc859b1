"""The tier ``lab``: real containerds, natively and in a virtual machine. It needs root and what ``make lab`` builds, and says so once."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import disk, root, tools
from lab import images as lab_images
from lab.errors import LabError
from lab.machine import Machine
from lab.native import Native
from lab.paths import PROJECT
from lab.recipe import ROOTS

_HERE = Path(__file__).parent
_TIER = os.environ.get("UNIKEEL_TIER", "")  # as in tests/conftest.py, which cannot be imported from here
_SAMPLES = os.path.join(PROJECT, "build", "samples")

_LEFT_OUT = pytest.StashKey[str]()

#: Gives the running lab of a root and a default snapshotter.
NativeFactory = Callable[[str, str], Native]


def _missing() -> str:
    """What is not there, as a sentence; empty if all is."""
    if os.geteuid() != 0:
        return "the tests in tests/lab need root"
    try:
        for name in ROOTS:
            root.opened(name)
        disk.opened()
    except LabError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root or without the lab: skip this directory's tests, or, if the tier was asked for, run none at all. And see :func:`_without_crictl`."""
    mine = [item for item in items if _HERE in item.path.parents]
    if not mine:
        return
    if not (reason := _missing()):
        _without_crictl(config, items)
        return
    if _TIER:
        raise pytest.UsageError(f"{reason}, and the tier {_TIER} was asked for")
    for item in mine:
        item.add_marker(pytest.mark.skip(reason=reason))


def _without_crictl(config: pytest.Config, items: list[pytest.Item]) -> None:
    """crictl is a Go program that no distribution has. Where there is no Go, what needs it is left out, and a line at the end says so; where there is,
    a tier that was asked for needs it.
    """
    needing = [item for item in items if item.get_closest_marker("crictl")]
    if not needing or tools.crictl():
        return
    if _TIER and shutil.which("go"):
        raise pytest.UsageError("crictl is not built, although this host has Go: run `make lab`")
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]
    config.stash[_LEFT_OUT] = f"{len(needing)} tests left out: this host has no crictl (`make lab` builds it, with Go)"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was left out."""
    if line := config.stash.get(_LEFT_OUT, ""):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def native() -> Iterator[NativeFactory]:
    """One lab for each root and default snapshotter, started when it is first asked for, with busybox imported. Shared: a test that kills containerd, or
    looks for leftovers, starts a :class:`Native` of its own."""
    running: dict[tuple[str, str], Native] = {}
    with contextlib.ExitStack() as stack:

        def give(name: str, snapshotter: str) -> Native:
            if (name, snapshotter) not in running:
                lab = stack.enter_context(Native(name, snapshotter))
                lab.import_image(lab_images.archive("busybox"))
                running[name, snapshotter] = lab
            return running[name, snapshotter]

        yield give


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The session's virtual machine, with containerd on devmapper and busybox imported."""
    with Machine() as booted:
        booted.start_containerd("devmapper")
        booted.import_image(lab_images.archive("busybox"))
        yield booted


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The archives of images, by name: the project's samples that are built, and the lab's ``busybox``."""
    samples = {
        name.removesuffix(".tar"): os.path.join(_SAMPLES, name)
        for name in os.listdir(_SAMPLES)
        if name.endswith(".tar")
    }
    return samples | {"busybox": lab_images.archive("busybox")}
