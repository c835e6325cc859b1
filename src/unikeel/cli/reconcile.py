"""``unikeel reconcile``: finish or undo what killed commands left."""

from __future__ import annotations

from unikeel.cli.failures import say
from unikeel.cli.options import Command, Parsed
from unikeel.cli.output import line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "reconcile",
    "finish or undo what killed commands left, and say what was done",
    examples=(("unikeel reconcile", "every command does this first; this one does nothing else"),),
    details="Pools that were half made or half taken away are cleared up by this command and by those of the group `pool`.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Open the engine, which does it; each thing done is a line on standard error."""
    del parsed
    from unikeel.cli.pooling import pools
    from unikeel.engine.engine import Engine

    said: list[str] = []

    def notice(sentence: str) -> None:
        said.append(sentence)
        say(sentence)

    with pools(session, make=True) as found:
        said += found.settled
    with Engine(session.root, config=session.config, notice=notice):
        if not said:
            line("nothing to do")
    return 0
