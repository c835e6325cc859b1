"""A process that acquires and releases boot files, for tests that need many, or that kill one.

Arguments: state root, image, choice, container. It says ``ready``, waits for a line on stdin, acquires, prints the strategy, hit or
fill and the digest of the kernel, waits for a line (or the end) and, if the line was ``release``, releases.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from unittest import mock

from boot_stages import World
from unikeel.boot.contract import Choice


def main() -> None:
    root, image, choice, container = sys.argv[1:]
    with World(root, image) as world:
        print("ready", flush=True)
        sys.stdin.readline()
        source = world.source(container)
        with world.files.acquire(source, {"kernel": "/boot/kernel", "initrd": "/boot/initrd"}, Choice(choice)) as boot:
            file = boot.files["kernel"]
            digest = hashlib.sha256(os.pread(file.fd.fileno(), file.size, 0)).hexdigest()
            print(boot.strategy, "hit" if boot.hit else "fill", digest, flush=True)
            if sys.stdin.readline().strip() == "release":
                world.files.release(container)


def stop_here(_pid: int, number: int) -> None:
    """Aimed at the process, SIGSTOP lets the thread that sends it run on until another one has taken the signal."""
    signal.pthread_kill(threading.get_ident(), number)


with mock.patch.object(os, "kill", stop_here):
    main()
