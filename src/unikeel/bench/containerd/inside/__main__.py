"""``python -m unikeel.bench.containerd.inside REQUEST``: one block of samples, printed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Final

from unikeel.bench.containerd.inside.session import Request, Session
from unikeel.errors import UnikeelError

#: Group → the module whose ``measure(session)`` takes its samples.
_GROUPS: Final[Mapping[str, str]] = {
    "first": "acquiring",
    "warm": "acquiring",
    "layers": "acquiring",
    "base": "basing",
    "tasks": "tasks",
    "siblings": "siblings",
    "crowd": "crowd",
    "memory": "memory",
    "killed": "returning",
}


async def block(request: Request) -> None:
    """Take the samples of a request. :raise UnikeelError: the world does not allow it."""
    measure: Callable[[Session], Awaitable[None]] = import_module(f"{__package__}.{_GROUPS[request.group]}").measure
    async with Session(request) as session:
        await measure(session)
        await session.describe()
        session.end()


def main(argv: list[str]) -> int:
    """Run it; the exit status."""
    try:
        asyncio.run(block(Request.from_text(argv[0])))
    except (UnikeelError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
