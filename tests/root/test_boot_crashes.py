"""Many processes at once fill once; a process that is killed at any step leaves nothing, and hands over to who waits."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from boot_stages import World, leftovers
from unikeel.boot.contract import Choice, Limits
from unikeel.testing.boot_tree import KERNEL, make_image

_CHILD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "boot_child.py")
_CHOICES = [Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_DIGEST = hashlib.sha256(KERNEL).hexdigest()
_PATHS = {"kernel": "/boot/kernel", "initrd": "/boot/initrd"}

#: The least that must be among the points that a start passes; the list itself is learned from a run.
_KNOWN = {
    Choice.CACHE: {"boot.cache.fill", "boot.cache.unfinished", "boot.cache.synced", "boot.cache.published"},
    Choice.SHARED_VIEW: {"boot.mount.intent", "boot.mount.loop", "boot.mount.mounted", "boot.mount.held"},
    Choice.VIEW: {"boot.view.intent", "boot.view.made", "boot.view.recorded", "boot.view.removed"},
    Choice.COPY: {"boot.copy.intent", "boot.copy.tmpfs", "boot.copy.copied", "boot.copy.discarded"},
}


@pytest.fixture
def image(tmp_path: os.PathLike[str]) -> str:
    tree, path = os.path.join(tmp_path, "tree"), os.path.join(tmp_path, "image")
    os.makedirs(os.path.join(tree, "boot"))
    for name in ("kernel", "initrd"):
        with open(os.path.join(tree, "boot", name), "wb") as file:
            file.write(KERNEL)
    make_image("ext4", tree, path)
    return path


@pytest.fixture
def root(tmp_path: os.PathLike[str]) -> str:
    path = os.path.join(tmp_path, "root")
    os.mkdir(path)
    return path


def start(root: str, image: str, choice: Choice, container: str, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, _CHILD, root, image, choice.value, container]
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)


def run_to_the_end(child: subprocess.Popen[str]) -> str:
    out, _ = child.communicate("go\nrelease\n", timeout=120)
    assert child.returncode == 0
    return out


def stopped_at(root: str, image: str, choice: Choice, point: str) -> subprocess.Popen[str]:
    """A child that has stopped itself at a fail point."""
    child = start(root, image, choice, "c1", UNIKEEL_FAILPOINT=point)
    assert child.stdin is not None
    child.stdin.write("go\nrelease\n")
    child.stdin.flush()
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), point
    return child


def run_on(child: subprocess.Popen[str]) -> str:
    """Have a stopped child run to its end, past further stops at the same point (one for each file)."""
    status = 0x7F
    while os.WIFSTOPPED(status):
        child.send_signal(signal.SIGCONT)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
    child.returncode = os.waitstatus_to_exitcode(status)
    out, _ = child.communicate()
    assert child.returncode == 0
    return out


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


@pytest.fixture(params=_CHOICES, ids=[choice.value for choice in _CHOICES])
def choice(request: pytest.FixtureRequest) -> Choice:
    chosen: Choice = request.param
    return chosen


def points(root: str, image: str, choice: Choice) -> list[str]:
    """The fail points that a process passes, each once."""
    trace = root + ".trace"
    run_to_the_end(start(root, image, choice, "traced", UNIKEEL_FAILPOINT_TRACE=trace))
    with open(trace, encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().split()))


def _all(_container: str) -> bool:
    return True


def _none(_container: str) -> bool:
    return False


def test_killed_at_every_step(root: str, image: str, choice: Choice) -> None:
    os.mkdir(os.path.join(root, "first"))
    passed = points(os.path.join(root, "first"), image, choice)
    assert set(passed) >= _KNOWN[choice]
    for number, point in enumerate(passed):
        for alive in (True, False):
            directory = os.path.join(root, f"{number}-{alive}")
            os.mkdir(directory)
            kill(stopped_at(directory, image, choice, point))
            with World(directory, image) as world:
                world.files.reconcile(_all if alive else _none)
                if alive:
                    with world.files.acquire(world.source("c1"), _PATHS, choice) as acquired:
                        assert (acquired.strategy, acquired.fallbacks) == (choice.value, [])
                        assert os.pread(acquired.files["kernel"].fd.fileno(), 1 << 20, 0) == KERNEL
                    world.files.reconcile(_none)
                world.files.drop_idle()
                assert leftovers(world) == [], point
                assert world.files.settle(30)
                recorded = {holding.name for holding in world.files.listing()}
                assert set(world.files._store.digests()) == recorded
                assert world.files.reconcile(_all) == []


def test_a_killed_filler_hands_over(root: str, image: str) -> None:
    filler = stopped_at(root, image, Choice.CACHE, "boot.cache.fill")
    waiter = start(root, image, Choice.CACHE, "c2")
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "ready\n"
    assert waiter.stdin is not None
    waiter.stdin.write("go\n")
    waiter.stdin.flush()
    kill(filler)
    assert waiter.stdout.readline().split() == ["cache", "fill", _DIGEST]
    waiter.communicate()


def test_waiting_has_an_end(root: str, image: str) -> None:
    filler = stopped_at(root, image, Choice.CACHE, "boot.cache.fill")
    try:
        with (
            World(root, image, limits=Limits(seconds=1.0)) as world,
            world.files.acquire(world.source("c2"), _PATHS, Choice.CACHE) as acquired,
        ):
            assert acquired.strategy == "shared-view"
            assert [(name, "longer than 1 s" in why) for name, why in acquired.fallbacks] == [("cache", True)]
    finally:
        kill(filler)


def test_the_living_are_left_alone(root: str, image: str, choice: Choice) -> None:
    steps = {
        Choice.CACHE: "boot.cache.unfinished",
        Choice.SHARED_VIEW: "boot.mount.mounted",
        Choice.VIEW: "boot.view.made",
        Choice.COPY: "boot.copy.copied",
    }
    child = stopped_at(root, image, choice, steps[choice])
    try:
        with World(root, image) as world:
            assert world.files.reconcile(_all) == []
            world.files.collect(everything=True)
    finally:
        out = run_on(child)
    assert out.split()[1:] == [choice.value, "fill", _DIGEST]


@pytest.fixture
def crowd(root: str, image: str, choice: Choice) -> Iterator[list[subprocess.Popen[str]]]:
    children = [start(root, image, choice, f"c{n}", UNIKEEL_FAILPOINT_TRACE=root + ".trace") for n in range(32)]
    yield children
    for child in children:
        child.communicate()


def test_32_processes_at_once(root: str, image: str, choice: Choice, crowd: list[subprocess.Popen[str]]) -> None:
    pipes = [(child.stdin, child.stdout) for child in crowd]
    for _, out in pipes:
        assert out is not None
        assert out.readline() == "ready\n"
    for line in ("go\n", "release\n"):
        for into, _ in pipes:
            assert into is not None
            into.write(line)
            into.flush()
    answers = [out.readline().split() for _, out in pipes if out is not None]
    assert {(strategy, digest) for strategy, _, digest in answers} == {(choice.value, _DIGEST)}
    for child in crowd:
        assert child.wait(60) == 0
    with open(root + ".trace", encoding="utf-8") as file:
        passed = file.read().split()
    if choice is Choice.CACHE:
        assert passed.count("boot.cache.fill") == 1
        assert passed.count("boot.cache.unfinished") == len(_PATHS)
    with World(root, image) as world:
        assert leftovers(world) == []
