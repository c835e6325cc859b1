"""Thin pools of ours on loop files, and stores in them, for tests that run where there is device-mapper."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unikeel.errors import FailedPrecondition, NotFound
from unikeel.kernel.devmapper import Control, Target, nodes
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.thin.identity import write_identity
from unikeel.snapshots.thin.reference import ThinPoolRef, pool_ref
from unikeel.snapshots.thin.store import ThinStore

#: The pools' blocks, in sectors: 64 KiB.
_BLOCK = 128
#: Of empty file systems.
SMALL = 1 << 24


def _loop(path: Path, size: int) -> str:
    with path.open("wb") as file:
        file.truncate(size)
    argv = ["losetup", "--find", "--show", "--direct-io=off", str(path)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


class Pool:
    """An active pool on two loop devices. Its devices go with it."""

    def __init__(self, directory: Path, data: int, metadata: int) -> None:
        self.ref: ThinPoolRef = pool_ref(f"t{uuid.uuid4().hex[:6]}", uuid.uuid4().hex)
        self.loops = [_loop(directory / "metadata", metadata), _loop(directory / "data", data)]
        self.size = data
        self.control = Control()
        self.control.create(self.ref.dm_name, f"UNIKEEL-{self.ref.uuid}-pool")
        self.load(data)
        write_identity(self.ref)

    def load(self, size: int) -> None:
        """Give the pool its table."""
        parameters = f"{' '.join(self.loops)} {_BLOCK} 0 1 error_if_no_space"
        self.control.load(self.ref.dm_name, (Target(0, size, "thin-pool", parameters),))
        nodes.ensure(self.control.resume(self.ref.dm_name))

    def devices(self) -> dict[int, str]:
        """The active thin devices but the one that holds the pool's identity: numbers and names."""
        found = {self.ref.number_of(name): name for name in self.control.names()}
        return {number: name for number, name in found.items() if number}

    def _all_names(self) -> list[str]:
        ours = [name for name in self.control.names() if self.ref.number_of(name) is not None]
        return [*ours, self.ref.dm_name]

    def deactivate(self) -> None:
        """Take all devices away, as a reboot does."""
        for name in self._all_names():
            nodes.remove(name)
            self.control.remove(name)

    def activate(self) -> None:
        """Undo :meth:`deactivate`."""
        self.control.create(self.ref.dm_name, f"UNIKEEL-{self.ref.uuid}-pool")
        self.load(self.size)

    def close(self) -> None:
        """Take everything away."""
        for name in self._all_names():
            nodes.remove(name)
            try:
                self.control.remove(name)
            except NotFound:
                continue
        self.control.close()
        for loop in self.loops:
            subprocess.run(["losetup", "--detach", loop], check=True)


@contextmanager
def made_pool(directory: Path, data: int = 1 << 30, metadata: int = 1 << 24) -> Iterator[Pool]:
    """A pool with nothing in it. Sizes in bytes; its files are sparse."""
    directory.mkdir(exist_ok=True)
    pool = Pool(directory, data, metadata)
    try:
        yield pool
    finally:
        pool.close()


class Process:
    """One process's store, with an owner of its own."""

    def __init__(
        self, root: Path, pool: ThinPoolRef, consumer: str = "test", admit: Callable[[], object] = lambda: None
    ) -> None:
        owners = root / "owners"
        owners.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            self.owner = Owner(str(owners))
            undo.callback(self.owner.close)
            self.database = Database(str(root / "records.db"))
            undo.callback(self.database.close)
            self.store = ThinStore(
                pool,
                self.database,
                consumer=consumer,
                owner=self.owner.token,
                is_dead=self.owner.is_dead,
                empty_size=SMALL,
                admit=admit,
            )
            undo.pop_all()

    def close(self) -> None:
        """Close everything; devices stay active."""
        self.store.close()
        self.database.close()
        self.owner.close()


def remove_all(store: ThinStore) -> None:
    """Remove all snapshots of a consumer, children first."""
    for info in reversed(list(store.list())):
        try:
            store.remove(info.name)
        except FailedPrecondition:
            continue
    if any(True for _ in store.list()):
        remove_all(store)


def content(path: str) -> bytes:
    """All that a small device holds."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, SMALL, 0)
    finally:
        os.close(fd)
