"""``unikeel start``: start containers that were created or have ended."""

from __future__ import annotations

from unikeel.cli import starting
from unikeel.cli.failures import say
from unikeel.cli.options import CONTAINERS, Argument, Command, Option, Parsed
from unikeel.cli.output import for_each, line
from unikeel.cli.timing import new_timeline
from unikeel.engine.settings import Settings
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.engine import Engine
    from unikeel.engine.handle import Container

COMMAND = Command(
    "start",
    "start containers that do not run",
    options=(
        Option(("-a", "--attach"), "be its console, as `run` is; the exit status is the guest's"),
        starting.READY,
        starting.TIMEOUT,
        starting.TIMELINE,
    ),
    arguments=(Argument("CONTAINER", "id or name", 1, None, CONTAINERS),),
    examples=(("unikeel start -a web", "start it again, and see what it prints"),),
    details="Prints the name of each container that was started, unless -a is given.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Start each; attach to the only one if wanted."""
    attached = parsed.flag("attach")
    if len(parsed.operands) > 1 and (attached or parsed.text("timeline")):
        raise InvalidArgument("only one container can be started with --attach or --timeline")
    with starting.interruptible(), session.engine() as engine:
        if attached:
            return _attached(engine, engine.container(parsed.operands[0]), parsed, session)

        def one(reference: str) -> None:
            container = engine.container(reference)
            _start(container, parsed, session)
            container.detach()
            line(reference)

        return for_each(parsed.operands, one)


def _start(container: Container, parsed: Parsed, session: Session) -> None:
    _warn(container)
    with starting.TimelineFile(parsed.text("timeline")) as file:
        try:
            starting.start(container, parsed, new_timeline(session), file)
        except BaseException:
            starting.give_up(container, remove=False)
            raise


def _attached(engine: Engine, container: Container, parsed: Parsed, session: Session) -> int:
    _warn(container)
    offset = starting.log_size(container)
    removing = container.record.auto_remove
    timeline = new_timeline(session)
    with starting.TimelineFile(parsed.text("timeline")) as file:
        try:
            starting.start(container, parsed, timeline, file)
            code = starting.foreground(engine, container, offset, timeline, file)
        except BaseException:
            starting.give_up(container, remove=removing)
            raise
    if removing:
        container.remove()
    return code


def _warn(container: Container) -> None:
    if not Settings.from_json(dict(container.record.settings)).sandbox:
        say(f"the monitor of {container.name} runs unconfined, as root (--no-sandbox)")
