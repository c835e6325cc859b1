"""``unikeel stop``: end the run of containers."""

from __future__ import annotations

from unikeel.cli.options import CONTAINERS, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "stop",
    "stop containers: politely first, then surely",
    options=(Option(("-t", "--time"), "how long a guest has to power off, in seconds; 0: no polite try", "SECONDS"),),
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("unikeel stop -t 30 web db", "give each up to half a minute"),),
)


def run(parsed: Parsed, session: Session) -> int:
    """Stop each; its name is printed when it has ended."""
    seconds = parsed.seconds("time")
    with session.engine() as engine:

        def one(reference: str) -> None:
            engine.container(reference).stop(seconds)
            line(reference)

        return for_each(parsed.operands, one)
