"""One block of samples: what was asked for, who is compared, the connections, the lines that are printed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Final, Self

from unikeel.bench import lines
from unikeel.bench.environment import first_line
from unikeel.bench.reporting import Reporter
from unikeel.bench.rows import Json, Key
from unikeel.containerd.client import Containerd
from unikeel.containerd.snapshots import Snapshots
from unikeel.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from unikeel.values import NamedTuple

#: What keeps a snapshot from containerd's garbage collector.
KEPT: Final = {"containerd.io/gc.root": "bench"}
#: Seconds that one call may take: the last of a hundred at once waits for all the others.
LONG: Final = 600.0
_PAUSE: Final = 0.2
_BUSY: Final = 30.0


class Contender(NamedTuple):
    """A snapshotter that is measured.

    :ivar name: in rows. :ivar snapshotter: as containerd calls it. :ivar address: its own socket; empty: it is a part of containerd.
    :ivar pool: its thin pool's device-mapper name; empty: it has none. :ivar parent: the committed snapshot that others are made of.
    :ivar spares: the most snapshots that it makes ahead. :ivar records: where it notes those.
    """

    name: str
    snapshotter: str
    address: str
    pool: str
    parent: str
    spares: int = 0
    records: str = ""


class Request(NamedTuple):
    """What the host asks for. ``image``: the layered image's name in containerd. The rest: :class:`unikeel.bench.snapshotter.plan.Block`."""

    group: str
    contenders: tuple[Contender, ...]
    image: str
    first: int
    rounds: int
    many: int
    few: int
    samples: int
    patience: float

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From the argument. :raise InvalidArgument: it is none of ours."""
        try:
            said = json.loads(text)
            said["contenders"] = tuple(Contender(*each) for each in said["contenders"])
            return cls(**{name: said[name] for name in cls._fields})
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument("this is started by python -m unikeel.bench.snapshotter alone") from None

    @property
    def numbers(self) -> range:
        """The numbers of the rounds."""
        return range(self.first, self.first + self.rounds)


class Session(Reporter):
    """The block while it runs; an asynchronous context manager."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.patience)
        self.request = request
        self.containerd = Containerd()
        self._sockets = {
            each.name: Containerd(each.address, self.containerd.namespace)
            for each in request.contenders
            if each.address
        }
        self._made = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in (*self._sockets.values(), self.containerd):
            await client.close()

    def through(self, contender: Contender) -> Snapshots:
        """A contender's snapshots, by containerd."""
        return self.containerd.snapshots(contender.snapshotter)

    def straight(self, contender: Contender) -> Snapshots | None:
        """The same at its own socket; None: it has none."""
        client = self._sockets.get(contender.name)
        return client.snapshots(contender.snapshotter) if client else None

    async def parent_at_socket(self, contender: Contender) -> str:
        """The parent's name at its own socket, where containerd has put namespace and number before it (containerd.md 3.4)."""
        straight = self.straight(contender)
        assert straight is not None
        found = [info.name for info in await straight.list() if info.name.endswith(f"/{contender.parent}")]
        if len(found) != 1:
            raise InvalidArgument(f"{contender.name} has {len(found)} snapshots that end with {contender.parent}")
        return found[0]

    def name(self, what: str) -> str:
        """A key that no snapshot has yet."""
        self._made += 1
        return f"bench-{what}-{os.getpid()}-{self._made}"

    def key(
        self,
        scenario: str,
        metric: str,
        contender: Contender,
        *,
        unit: str = "ms",
        concurrency: int | None = 1,
        siblings: int | None = None,
    ) -> Key:
        """A key of this world."""
        return Key(
            scenario, metric, unit, snapshotter=contender.name, concurrency=concurrency, siblings=siblings
        )  # fmt: skip

    async def collect(self) -> None:
        """Have containerd's garbage collector run, to its end: what was removed is gone from the snapshotters then."""
        name = self.name("collect")
        await self.containerd.leases.create(name)
        await self.containerd.leases.delete(name, sync=True, timeout=LONG)

    async def clear(self, contender: Contender, keys: Sequence[str]) -> None:
        """Remove snapshots, those that are there, in this order, and have them collected."""
        for key in keys:
            with suppress(NotFound):
                await self.through(contender).remove(key, timeout=LONG)
        await self.collect()

    async def spares_made(self, contender: Contender, wanted: int) -> None:
        """Wait until a contender that makes snapshots ahead has so many, or all that it makes. :raise DeadlineExceeded: it has not, in minutes."""
        wanted, end = min(wanted, contender.spares), time.monotonic() + LONG
        while (found := spares(contender.records) if wanted else 0) < wanted:
            if time.monotonic() > end:
                raise DeadlineExceeded(f"{contender.name} has {found} spares, and not {wanted}")
            await asyncio.sleep(_PAUSE)

    async def describe(self) -> None:
        """What this world is."""
        found: dict[str, Json] = {
            "containerd": (await self.containerd.version()).version,
            "kernel": os.uname().release,
            "python": sys.version.split()[0],
            "dmsetup": first_line(["dmsetup", "version"]),
        }
        print(lines.environment(found))


def spares(records: str) -> int:
    """How many spares are noted in a record store. :raise Unavailable: it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{records}?mode=ro", uri=True, timeout=_BUSY)) as connection:
            return int(connection.execute("SELECT count(*) FROM snapshot_spares").fetchone()[0])
    except sqlite3.Error as error:
        raise Unavailable(f"{records} does not tell its spares: {error}") from None


def ms_since(begun: int) -> float:
    """Milliseconds since a reading of :func:`time.perf_counter_ns`."""
    return (time.perf_counter_ns() - begun) / 1e6
