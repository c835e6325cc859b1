"""containerd dies, or the ground under us gives way: no space, clients that vanish."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.errors import LabError
from lab_support import ttrpc
from lab_support.dying import restarted
from lab_support.processes import kill_and_wait
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import PATIENCE, until
from lab_support.world import LONG, ROOTS, RUN, World

__all__ = ["nothing_left"]
setting = settings(ROOTS)


@contextmanager
def load(setting: Setting) -> Iterator[None]:
    """Somebody makes and removes containers all the time, and does not mind errors."""
    ended = threading.Event()
    world = setting.world

    def work() -> None:
        while not ended.is_set():
            ident = setting.new("load")
            for words in (
                world.run_words(ident, "exit=0", snapshotter=setting.snapshotter, flags=["--rm"]),
                ["containers", "rm", ident],
            ):
                try:
                    world.ctr(*words, check=False, timeout=30)
                except LabError:
                    continue

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        ended.set()
        for worker in workers:
            worker.join(PATIENCE * 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containerd_is_restarted_under_load(setting: Setting, number: int) -> None:
    world = setting.world
    idents = [setting.new("stays") for _ in range(6 if LONG else 3)]
    for ident in idents:
        setting.detached(ident, "wait")
    before = {ident: world.tasks()[ident] for ident in idents}
    with load(setting):
        for _ in range(4 if LONG else 2):
            world.lab.restart_containerd(kill=number)
            until(
                lambda: {ident: world.tasks().get(ident) for ident in idents} == before, "every task is there again", 20
            )
    clear_load(world)
    world.remove_all(idents)


def clear_load(world: World) -> None:
    """Remove what the interrupted clients of :func:`load` left in containerd."""
    for ident in world.ctr("containers", "ls", "-q").stdout.split():
        if ident.startswith("load"):
            world.remove(ident)


def test_a_guest_ends_while_containerd_is_away(setting: Setting) -> None:
    """Its exit is told when containerd is back."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    monitor = world.monitor_of(ident)
    world.lab.stop_containerd(kill=signal.SIGKILL)
    kill_and_wait(monitor)
    world.lab.restart_containerd()
    world.await_status(ident, "STOPPED", 20)
    assert world.api(lambda containerd: containerd.tasks.wait(ident, timeout=PATIENCE)).status == 137
    world.remove(ident)


@contextmanager
def small(world: World, directory: str, mib: int) -> Iterator[str]:
    """A file system of few mebibytes in place of a directory, with keeper and daemon started on it; the path of a file that fills it."""
    world.stop_everything_of_ours()
    world.lab.run(["mkdir", "-p", directory])
    world.lab.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "small", directory])
    try:
        world.start_daemon()
        yield f"{directory}/filler"
    finally:
        world.stop_everything_of_ours()
        world.lab.run(["umount", "--lazy", directory])
        restarted(world)


@pytest.mark.parametrize(("directory", "mib"), [(RUN, 8), ("/var/lib/unikeel", 24)])
def test_the_disk_is_full(setting: Setting, directory: str, mib: int) -> None:
    """A start fails in a sentence and leaves nothing, what runs goes on, and with space again everything works."""
    world, running, failing = setting.world, setting.new("running"), setting.new("failing")
    with small(world, directory, mib) as filler:
        setting.detached(running, "wait")
        world.lab.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], check=False)
        done = setting.detached(failing, "wait", check=False)
        assert done.returncode != 0
        assert "space" in done.stderr, done.stderr
        assert "traceback" not in done.stderr.lower()
        assert world.status(running) == "RUNNING"
        world.lab.run(["rm", filler])
        world.remove(failing)
        assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3
        world.remove(running)
        assert world.settled() == []


def test_a_client_vanishes_in_the_middle_of_a_frame(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    frame = ttrpc.state_request(ident)
    for length in (1, 9, 10, 11, len(frame) - 1):
        with ttrpc.connected(world) as peer:
            peer.sendall(frame[:length])
            peer.shutdown(socket.SHUT_WR)
    with ttrpc.connected(world) as peer:  # one that is slow is waited for
        for byte in frame:
            peer.sendall(bytes([byte]))
        assert ttrpc.answer(peer).code == 0
    assert world.status(ident) == "RUNNING"
    world.remove(ident)


def test_a_client_that_does_not_read(setting: Setting) -> None:
    """Its answers pile up to a limit; nobody else notices."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    frame = ttrpc.state_request(ident)
    with ttrpc.connected(world) as peer:
        peer.settimeout(2)
        sent = 0
        try:
            for _ in range(20000):
                sent += peer.send(frame)
        except (TimeoutError, OSError):
            pass
        assert sent
        assert world.status(ident) == "RUNNING"
    world.remove(ident)
