"""``unikeel wait``: wait until containers have ended."""

from __future__ import annotations

from unikeel.cli.options import CONTAINERS, Argument, Command, Parsed
from unikeel.cli.output import for_each, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "wait",
    "wait until containers have ended, and print their exit codes",
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("code=$(unikeel wait job)", "the exit code of one"),),
    details="One line with the exit code for each, in the order given. The command's own exit status is 0 if all could be waited for.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Wait for each in turn."""
    with session.engine() as engine:
        return for_each(parsed.operands, lambda reference: line(str(engine.container(reference).wait())))
