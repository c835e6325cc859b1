"""``unikeel create``: make a container, and leave it for ``unikeel start``."""

from __future__ import annotations

from unikeel.cli import containing, progress
from unikeel.cli.options import Command, Parsed
from unikeel.cli.output import line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "create",
    "make a container of an image, and print its id",
    options=containing.OPTIONS,
    arguments=containing.ARGUMENTS,
    examples=(("unikeel create --name web -p 8080:80 nginx && unikeel start web", "in two steps"),),
    stops=True,
)


def run(parsed: Parsed, session: Session) -> int:
    """Create and print the id."""
    options = containing.options(parsed)
    with session.engine() as engine, progress.shown() as shown:
        line(engine.create(parsed.operands[0], options, progress=shown).id)
    return 0
