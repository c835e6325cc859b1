"""``unikeel logs``: what a guest has printed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from unikeel.cli.options import CONTAINERS, Argument, Command, Option, Parsed
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.engine import Engine

COMMAND = Command(
    "logs",
    "print what a guest has printed on its console",
    options=(Option(("-f", "--follow"), "go on until it ends"),),
    arguments=(Argument("CONTAINER", "id or name", complete=CONTAINERS),),
    examples=(("unikeel logs -f web", "see what it prints, until it ends or Ctrl-C"),),
    details="The last bytes of all its runs, as many as the configuration keeps (console.log_size), unchanged.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Copy the log to standard output."""
    with session.engine() as engine:
        container = engine.container(parsed.operands[0])
        pieces = _followed(engine, container.id) if parsed.flag("follow") else container.logs()
        for piece in pieces:
            _write_all(piece)
    return 0


def _followed(engine: Engine, ident: str) -> Iterator[bytes]:
    """All that there is, then what comes: read in one go, so that nothing gets lost in between."""
    from unikeel.engine.console import ConsoleReader, follow

    path = os.path.join(engine.services.layout.container(ident), "console.log")
    with ConsoleReader(path + ".1") as older:
        while data := older.read():
            yield data
    yield from follow(engine.services, ident, 0)


def _write_all(data: bytes) -> None:
    """Straight to the descriptor: what a guest prints need not be text, and must not wait in a buffer."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
