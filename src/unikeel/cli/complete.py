"""``unikeel __complete``: what the shells' completion asks; in no list of commands."""

from __future__ import annotations

from unikeel.cli.completing import answer
from unikeel.cli.options import CONTAINERS, POOLS, SNAPSHOTS, Argument, Command, Parsed
from unikeel.cli.output import line
from unikeel.cli.ps import recorded
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "__complete",
    "print what can follow",
    arguments=(Argument("WORD", "the words so far, the unfinished one last", 0, None),),
    stops=True,
)


def run(parsed: Parsed, session: Session) -> int:
    """One candidate a line. The words begin behind the program's name; the options of all commands among them count."""
    for candidate in answer(parsed.operands, lambda kind, root, config: _names(session, kind, root, config)):
        line(candidate)
    return 0


def _names(session: Session, kind: str, root: str, config: str) -> list[str]:
    if kind in (POOLS, SNAPSHOTS):
        from unikeel.cli.pooling import looking

        with looking(session._replace(root=root or session.root, config=config or session.config)) as found:
            if kind == POOLS:
                return found.registry.names()
            return list(dict.fromkeys(entry.info.name for entry in found.catalog().entries()))
    from unikeel.engine.engine import Engine

    with Engine(root or session.root, config=config or session.config) as engine:
        if kind == CONTAINERS:
            return [record.name for record in recorded(engine, everything=True)]
        return [image.name.removesuffix(":latest") for image in engine.images() if image.name]
