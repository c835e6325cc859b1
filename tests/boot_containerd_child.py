"""A daemon that acquires boot files of a containerd's image, for a test that kills it at a step. Arguments: state root, image, choice.

It releases and ticks at once after it has acquired, so that the steps of taking away are passed as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from unittest import mock

from containerd_stages import ContainerdWorld
from unikeel.boot.contract import Choice
from unikeel.containerd.records import Mount


def main() -> None:
    root, image, choice = sys.argv[1:]
    with ContainerdWorld(root, (Mount("ext4", image, "", ("ro", "loop")),)) as world:
        with world.files.acquire(world.source(), {"kernel": "/kernel"}, Choice(choice)) as boot:
            assert boot.strategy == choice
        for row in world.rows.all():
            world.rows.put(row._replace(leased_ns=1))
        world.files.tick()
        world.files.release("c1")
        world.files.tick()
        deadline = time.monotonic() + 30
        while world.rows.all() and time.monotonic() < deadline:
            world.files.tick()


def stop_here(_pid: int, number: int) -> None:
    """Aimed at the process, SIGSTOP lets the thread that sends it run on until another one has taken the signal."""
    signal.pthread_kill(threading.get_ident(), number)


with mock.patch.object(os, "kill", stop_here):
    main()
