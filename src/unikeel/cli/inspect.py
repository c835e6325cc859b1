"""``unikeel inspect``: everything that is known of a container."""

from __future__ import annotations

from unikeel.cli.options import CONTAINERS, JSON, Argument, Command, Parsed
from unikeel.cli.output import json
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "inspect",
    "print everything that is known of containers, as JSON",
    options=(JSON,),
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("unikeel inspect web", "its record, settings, disk, and its monitor's command line"),),
    details="A list with one object for each container. --json changes nothing: it is accepted because every listing has it.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print a list of objects."""
    with session.engine() as engine:
        json([engine.container(reference).inspect() for reference in parsed.operands])
    return 0
