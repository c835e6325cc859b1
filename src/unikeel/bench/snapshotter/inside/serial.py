"""``serial``: a snapshot's whole life, one call after the other: Prepare, writing into it, Commit, the first View of it, a second one, Remove.

By containerd, and (scenario ``socket``) at the snapshotter's own socket. Before the Commit a megabyte is written through a mount, so that there is something to
keep; mounting, and looking whether the parent's file is there, is in no time. ``collected`` is Remove with the garbage collection that carries it out.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Key
from unikeel.bench.snapshotter.inside.session import KEPT, LONG, Contender, Session, ms_since
from unikeel.bench.snapshotter.layered import FILE
from unikeel.bench.snapshotter.plan import SYNCED
from unikeel.containerd.records import Mount
from unikeel.containerd.snapshots import Snapshots
from unikeel.errors import NotFound, Unavailable, UnikeelError

_WRITTEN: Final = 1 << 20
_SECONDS: Final = 120.0
#: The new system calls of mount(8) take 255 bytes for one option: fewer than the directories of five layers have.
_OLD_CALL: Final = {"LIBMOUNT_FORCE_MOUNT2": "always"}
_METRICS: Final = ("prepare", "commit", "view_first", "view", "remove")


async def measure(session: Session) -> None:
    """A life of each contender in each round; one of each before that is not counted, in which the views are looked into."""
    if session.request.first == 0:
        for contender in session.request.contenders:
            await _sampled(session, contender, count=False)
    for number in session.request.numbers:
        session.begin_round()
        for contender in rotated(session.request.contenders, number):
            await _sampled(session, contender, count=True)


async def _sampled(session: Session, contender: Contender, *, count: bool) -> None:
    if count:
        await session.spares_made(contender, 1)
    await _life(session, contender, session.through(contender), contender.parent, "serial", count=count)
    await _collected(session, contender, count=count)
    if contender.name in SYNCED:
        if count:
            await session.spares_made(contender, 1)
        await _synced(session, contender, count=count)
    straight = session.straight(contender)
    if straight is not None:
        parent = await session.parent_at_socket(contender)
        if count:
            await session.spares_made(contender, 1)
        await _life(session, contender, straight, parent, "socket", count=count)


async def _life(
    session: Session, contender: Contender, store: Snapshots, parent: str, scenario: str, *, count: bool
) -> None:
    keys = {metric: session.key(scenario, metric, contender) for metric in _METRICS}
    try:
        times = await life(session, store, parent, look=not count)
    except (UnikeelError, OSError) as error:
        if count:
            session.failure(keys.values(), error)
        else:
            session.notice(f"{contender.name}, {scenario}: {error}")
        return
    if count:
        for metric, key in keys.items():
            session.sample(key, times[metric])


async def life(session: Session, store: Snapshots, parent: str, *, look: bool) -> dict[str, float]:
    """Milliseconds of each call. Nothing of it is left. :raise UnikeelError: a call fails, or what it gave is not as it must be."""
    key, name, first, second = (session.name(what) for what in ("active", "committed", "view", "view"))
    times: dict[str, float] = {}

    @asynccontextmanager
    async def timed(metric: str) -> AsyncIterator[None]:
        begun = time.perf_counter_ns()
        yield
        times[metric] = ms_since(begun)

    os.sync()  # nobody pays for what another has left to be written out
    try:
        async with timed("prepare"):
            mounts = await store.prepare(key, parent, KEPT, timeout=LONG)
        written(mounts)
        async with timed("commit"):
            await store.commit(name, key, KEPT)
        async with timed("view_first"):
            mounts = await store.view(first, name, KEPT, timeout=LONG)
        if look:
            looked_at(mounts)
        async with timed("view"):
            await store.view(second, name, KEPT, timeout=LONG)
        async with timed("remove"):
            await store.remove(second, timeout=LONG)
        return times
    finally:
        for each in (second, first, key, name):
            with suppress(NotFound):
                await store.remove(each, timeout=LONG)


async def _synced(session: Session, contender: Contender, *, count: bool) -> None:
    """One Prepare and a flush of the file that it gives."""
    key, name = session.key("synced", "prepare", contender), session.name("synced")
    os.sync()
    try:
        begun = time.perf_counter_ns()
        [mount] = await session.through(contender).prepare(name, contender.parent, KEPT, timeout=LONG)
        _flush(mount.source)
        if count:
            session.sample(key, ms_since(begun))
        await session.clear(contender, [name])
    except (UnikeelError, OSError) as error:
        if count:
            session.failure([key], error)


def _flush(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _collected(session: Session, contender: Contender, *, count: bool) -> None:
    """One Remove and the collection after it. What the life before has left for the collector is collected before."""
    key: Key = session.key("collected", "remove", contender)
    try:
        await session.collect()
        name = session.name("collected")
        await session.through(contender).prepare(name, contender.parent, KEPT, timeout=LONG)
        begun = time.perf_counter_ns()
        await session.clear(contender, [name])
        if count:
            session.sample(key, ms_since(begun))
    except UnikeelError as error:
        if count:
            session.failure([key], error)


def written(mounts: Sequence[Mount]) -> None:
    """Write something into a writable snapshot. :raise Unavailable: it cannot be mounted, or does not have its parent's content."""
    with _mounted(mounts) as directory:
        _look(directory)
        with open(os.path.join(directory, "written"), "wb") as file:
            file.write(os.urandom(_WRITTEN))


def looked_at(mounts: Sequence[Mount]) -> None:
    """Look into a view. :raise Unavailable: it is not read-only, or does not have what was written."""
    if any(map(_writable, mounts)):
        raise Unavailable("a view is not read-only")
    with _mounted(mounts) as directory:
        _look(directory)
        if os.path.getsize(os.path.join(directory, "written")) != _WRITTEN:
            raise Unavailable("what was committed is not in its view")


def _writable(mount: Mount) -> bool:
    """An overlay can be written to if it has an upper directory, anything else unless it says that it is read-only."""
    upper = any(option.startswith("upperdir=") for option in mount.options)
    return upper if mount.type == "overlay" else "ro" not in mount.options


def _look(directory: str) -> None:
    if not os.path.exists(os.path.join(directory, f"{FILE}0")):
        raise Unavailable("a snapshot does not have its parent's content")


@contextmanager
def _mounted(mounts: Sequence[Mount]) -> Iterator[str]:
    if len(mounts) != 1:
        raise Unavailable(f"the snapshot has {len(mounts)} mounts")
    [mount] = mounts
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        _tool("mount", "-t", mount.type, "-o", ",".join(mount.options or ("rw",)), mount.source, directory)
        try:
            yield directory
        finally:
            _tool("umount", directory)


def _tool(*argv: str) -> None:
    done = subprocess.run(
        argv, env=os.environ | _OLD_CALL, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise Unavailable(f"{argv[0]} fails: {done.stderr.strip()}")
