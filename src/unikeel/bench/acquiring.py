"""One sample of ``acquire``, in a process of its own: what a start does up to the boot files, and that step timed.

The container is made and everything is imported as by ``unikeel run``; timed is the one call from the known parent to open descriptors of all boot
files, the user's record written. Then the bytes are read back through the descriptors and hashed, outside of the time, and the container is
removed. The answer is one line of JSON on standard output.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from unikeel import errors
from unikeel.boot.contract import Acquired, Choice, HostMount, Source
from unikeel.engine import creating, starting
from unikeel.engine.engine import Engine
from unikeel.engine.settings import Options, Settings

if TYPE_CHECKING:
    from unikeel.engine.containers import Container

_CHUNK = 1 << 20


def sample(engine: Engine, record: Container, choice: Choice) -> dict[str, object]:
    """Acquire for a container that was just created; what happened."""
    services, settings = engine.services, Settings.from_json(dict(record.settings))
    services.keeper.start_early()
    before = time.monotonic_ns()
    services.boot.prepare(choice)
    prepared = time.monotonic_ns()
    services.acceleration(services.facts(settings.guest.monitor), settings.accel)
    disk = services.snapshots.disk(record.id) if settings.disk else None
    source = Source(
        services.parent(record.parent),
        container=record.id,
        rootfs=(HostMount("ext4", disk.path),) if disk is not None and disk.format == "raw" else (),
        guest_ran=False,
        monitor_uid=services.uid(record.slot),
    )
    paths = {"kernel": settings.guest.binary}
    if settings.initrd:
        paths["initrd"] = settings.guest.initrd
    start = time.monotonic_ns()
    acquired = services.boot.acquire(source, paths, choice)
    end = time.monotonic_ns()
    with acquired:
        return {
            "ns": end - start,
            "prepare_ns": prepared - before,
            "strategy": acquired.strategy,
            "hit": acquired.hit,
            "fallbacks": acquired.fallbacks,
            "sha256": read_back(acquired),
        }


def read_back(acquired: Acquired) -> dict[str, str]:
    """The digest of each boot file, read as the monitor reads it: by opening the descriptor's file anew."""
    import hashlib

    found = {}
    for role, file in acquired.files.items():
        digest = hashlib.sha256()
        with open(f"/proc/self/fd/{file.fd.fileno()}", "rb", buffering=0) as again:
            while piece := again.read(_CHUNK):
                digest.update(piece)
        found[role] = digest.hexdigest()
    return found


def main(argv: list[str]) -> int:
    """Arguments: state root, configuration, image, strategy."""
    import json

    root, config, image, strategy = argv
    try:
        with Engine(root, config=config) as engine:
            container = engine.create(image, Options(boot_files=strategy))
            try:
                answer = sample(engine, container.record, Choice(strategy))
            finally:
                container.remove(force=True)
    except (errors.UnikeelError, OSError) as error:
        answer = {"error": str(error)}
    os.write(1, json.dumps(answer).encode())
    return 0


#: A start imports these before it comes to its boot files; so does a sample.
IMPORTED = (creating, starting)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
