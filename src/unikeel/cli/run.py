"""``unikeel run``: create a container, start it, be its console."""

from __future__ import annotations

from unikeel.cli import containing, progress, starting
from unikeel.cli.failures import Interrupted, say
from unikeel.cli.options import Command, Option, Parsed
from unikeel.cli.output import line
from unikeel.cli.timing import new_timeline
from unikeel.lean import TYPE_CHECKING
from unikeel.model.states import ContainerState

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.engine import Engine
    from unikeel.engine.handle import Container
    from unikeel.engine.timeline import Timeline

COMMAND = Command(
    "run",
    "create a container of an image, start it, and be its console",
    options=(
        Option(("-d", "--detach"), "leave it running and print its id"),
        *containing.OPTIONS,
        starting.READY,
        starting.TIMEOUT,
        starting.TIMELINE,
    ),
    arguments=containing.ARGUMENTS,
    examples=(
        ("unikeel run --rm hello", "run it in the foreground; Ctrl-C stops it politely, a second one kills it"),
        ("unikeel run -d --name web -p 8080:80 --ready port:80 nginx", "start a server, wait until it answers"),
        ("unikeel run --rm hello exit=3 --verbose", "all that follows the image goes to the guest, options too"),
    ),
    details="In the foreground standard input and output are the guest's console, and the exit status is the guest's. The end of "
    "standard input does not end the guest. A container that never ran is removed when its start fails. "
    "With --ready, a guest that is not ready in time is ended.",
    stops=True,
)


def run(parsed: Parsed, session: Session) -> int:
    """Create, start, attach; with ``-d`` print the id."""
    options = containing.options(parsed)
    if not options.sandbox:
        say("the monitor runs unconfined, as root (--no-sandbox)")
    with starting.interruptible(), starting.TimelineFile(parsed.text("timeline")) as file, session.engine() as engine:
        engine.services.keeper.start_early()
        _import_rest()
        timeline = new_timeline(session)
        with progress.shown() as shown:
            container = engine.create(parsed.operands[0], options, progress=shown, timeline=timeline)
        return _start(engine, container, parsed, timeline, file)


def _import_rest() -> None:
    """Import what every start needs, so that the timeline counts it as import and not as a step's own time."""
    from unikeel.engine import creating
    from unikeel.engine import starting as steps

    del creating, steps


def _start(
    engine: Engine, container: Container, parsed: Parsed, timeline: Timeline, file: starting.TimelineFile
) -> int:
    removing, detached = parsed.flag("rm"), parsed.flag("detach")
    try:
        starting.start(container, parsed, timeline, file)
        if detached:
            line(container.id)
            container.detach()
            return 0
        code = starting.foreground(engine, container, 0, timeline, file)
    except BaseException as error:
        # One that never ran has nothing to show, and of one that was interrupted nobody knows the id.
        useless = isinstance(error, Interrupted) or container.record.state is ContainerState.CREATED
        starting.give_up(container, remove=removing or useless)
        raise
    if removing:
        container.remove()
    return code
