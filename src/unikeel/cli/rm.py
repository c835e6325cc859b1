"""``unikeel rm``: remove containers."""

from __future__ import annotations

from unikeel.cli.options import CONTAINERS, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "rm",
    "remove containers, with their disks and logs",
    options=(Option(("-f", "--force"), "kill those that run first"),),
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("unikeel rm -f web", "whatever it is doing"),),
)


def run(parsed: Parsed, session: Session) -> int:
    """Remove each."""
    force = parsed.flag("force")
    with session.engine() as engine:

        def one(reference: str) -> None:
            engine.container(reference).remove(force=force)
            line(reference)

        return for_each(parsed.operands, one)
