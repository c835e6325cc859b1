"""``unikeel image rm``: remove images."""

from __future__ import annotations

from unikeel.cli.options import IMAGES, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "image rm",
    "take images' names away; with the last name goes the image",
    options=(Option(("-f", "--force"), "also if containers were made of it; they keep working"),),
    arguments=(Argument("IMAGE", "name or digest", 1, None, IMAGES),),
    examples=(("unikeel image rm hello", "its snapshot goes, too, if nobody else needs it"),),
)


def run(parsed: Parsed, session: Session) -> int:
    """Remove each."""
    force = parsed.flag("force")
    with session.engine() as engine:

        def one(reference: str) -> None:
            engine.remove_image(reference, force=force)
            line(reference)

        return for_each(parsed.operands, one)
