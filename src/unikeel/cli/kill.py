"""``unikeel kill``: send a signal to the monitors of containers."""

from __future__ import annotations

import signal

from unikeel.cli.options import CONTAINERS, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "kill",
    "send a signal to the monitor of containers",
    options=(Option(("-s", "--signal"), "name or number; KILL by default", "SIGNAL"),),
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("unikeel kill -s TERM web", "the monitor ends in an orderly way, its guest does not"),),
)


def run(parsed: Parsed, session: Session) -> int:
    """Send it to each."""
    number = signal_number(parsed.text("signal") or "KILL")
    with session.engine() as engine:

        def one(reference: str) -> None:
            engine.container(reference).kill(number)
            line(reference)

        return for_each(parsed.operands, one)


def signal_number(text: str) -> int:
    """``KILL``, ``SIGKILL``, ``sigkill`` or ``9``. :raise InvalidArgument: there is no such signal; the hint has the nearest."""
    names = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}
    word = text.upper().removeprefix("SIG")
    if word in names:
        return names[word]
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) in names.values():
        return int(text)
    from unikeel.model.names import nearest, quote

    near = nearest(word.lower(), [name.lower() for name in names]).upper()
    raise InvalidArgument(
        f"there is no signal {quote(text)}", f"did you mean {near}?" if near else "KILL, TERM, INT, …"
    )
