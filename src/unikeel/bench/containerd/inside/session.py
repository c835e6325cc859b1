"""One block of samples: what was asked for, the connection to containerd, the lines that are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from unikeel.bench import environment, lines
from unikeel.bench.reporting import Reporter
from unikeel.bench.rows import Json, Key
from unikeel.containerd.client import Containerd
from unikeel.errors import InvalidArgument
from unikeel.values import NamedTuple


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
    runtimes: Sequence[str] = ()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From the argument. :raise InvalidArgument: it is none of ours."""
        try:
            said = json.loads(text)
            return cls(**{name: said[name] for name in cls._fields if name in said or name not in cls._field_defaults})
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument("this is started by python -m unikeel.bench.containerd alone") from None

    @property
    def samples(self) -> list[str]:
        """The sample images, in order."""
        return list(self.boot_files)


class Session(Reporter):
    """The block while it runs; an asynchronous context manager."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.patience)
        self.request = request
        self.snapshotter = request.snapshotter
        self.containerd = Containerd()

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
