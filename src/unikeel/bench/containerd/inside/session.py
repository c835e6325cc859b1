"""One block of samples: what was asked for, the connection to containerd, the lines that are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self, TypeVar

from unikeel.bench import environment
from unikeel.bench.containerd import lines
from unikeel.bench.quiet import Quiet
from unikeel.bench.rows import Json, Key
from unikeel.containerd.client import Containerd
from unikeel.errors import InvalidArgument

T = TypeVar("T")


class Request(NamedTuple):
    """What the host asks for. ``images``: sample → name in containerd; ``boot_files``: sample → role → path; ``expected``: their digests."""

    group: str
    snapshotter: str
    block: bool
    first: int
    rounds: int
    siblings: int
    per_round: int
    images: Mapping[str, str]
    archives: Mapping[str, str]
    boot_files: Mapping[str, Mapping[str, str]]
    expected: Mapping[str, Mapping[str, str]]
    patience: float

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From the argument. :raise InvalidArgument: it is none of ours."""
        try:
            said = json.loads(text)
            return cls(**{name: said[name] for name in cls._fields})
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument("this is started by python -m unikeel.bench.containerd alone") from None

    @property
    def samples(self) -> list[str]:
        """The sample images, in order."""
        return list(self.boot_files)


class Session:
    """The block while it runs; an asynchronous context manager."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.snapshotter = request.snapshotter
        self.containerd = Containerd()
        self.quiet = Quiet(request.patience)

    def within(self, namespace: str) -> Session:
        """The same in another namespace of containerd. It need not be closed."""
        other = Session(self.request)
        other.containerd = self.containerd.with_namespace(namespace)
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.containerd.close()

    def key(
        self,
        scenario: str,
        metric: str,
        image: str | None = None,
        strategy: str | None = None,
        runtime: str | None = None,
        *,
        unit: str = "ms",
        concurrency: int | None = 1,
        siblings: int | None = 0,
    ) -> Key:
        """A key of this world."""
        return Key(scenario, metric, unit, image, strategy, self.snapshotter, runtime, concurrency, siblings)

    def sample(self, key: Key, value: float) -> None:
        """A sample."""
        print(lines.sample(key, value))

    def failure(self, keys: Iterable[Key], error: Exception | str) -> None:
        """No sample, for these series."""
        for key in keys:
            print(lines.failure(key, str(error) or type(error).__name__))

    def notice(self, message: str) -> None:
        """Something for the report."""
        print(lines.notice(message))

    def begin_round(self) -> None:
        """Wait for a quiet host, and have printed what there is: what was measured is not lost if the next round never ends."""
        sys.stdout.flush()
        self.quiet.wait()

    async def describe(self) -> None:
        """What this world is."""
        found: dict[str, Json] = {
            "containerd": (await self.containerd.version()).version,
            "kernel": os.uname().release,
            "python": sys.version.split()[0],
            "qemu": environment.first_line(["qemu-system-" + os.uname().machine, "--version"]),
            "crun": environment.first_line(["crun", "--version"]),
            "runc": environment.first_line(["runc", "--version"]),
        }
        print(lines.environment(found))

    def end(self) -> None:
        """Everything was measured."""
        print(lines.end(), flush=True)


def rotated(among: Sequence[T], by: int) -> list[T]:
    """The same in another order for each round, so that nobody always comes after the same neighbour."""
    start = by % len(among) if among else 0
    return [*among[start:], *among[:start]]
