"""``unikeel timeline``: the steps of a container's last start."""

from __future__ import annotations

from unikeel.cli.options import CONTAINERS, JSON, Argument, Command, Parsed
from unikeel.cli.output import json, table, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.engine import Engine
    from unikeel.engine.timeline import Span, Timeline

COMMAND = Command(
    "timeline",
    "show the steps of a container's last start, and how long each took",
    options=(JSON,),
    arguments=(Argument("CONTAINER", "id or name", complete=CONTAINERS),),
    examples=(("unikeel timeline web", "step, milliseconds, share of the whole"),),
    details="Steps within a step are indented; the share is of the time from the command's start to the end of the last step. JSON keys: "
    "clock, start, and spans, each with name, parent, start, end (nanoseconds of the monotonic clock) and attributes.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print the table, or what is stored."""
    with session.engine() as engine:
        timeline = task_timeline(engine, session, parsed.operands[0]) or engine.container(parsed.operands[0]).timeline()
    if parsed.flag("json"):
        json(timeline.to_json())
    else:
        write(rendered(timeline))
    return 0


def task_timeline(engine: Engine, session: Session, reference: str) -> Timeline | None:
    """That of a task of containerd's, by its id or ours; None if there is none. :raise NotFound: there are several, or it has none yet."""
    from unikeel.engine import tasks
    from unikeel.engine.services import read_text
    from unikeel.engine.timeline import Timeline
    from unikeel.errors import NotFound

    recorded = tasks.recorded(engine.services.database)
    found = [task for task in recorded if task.id == reference or task.ident.startswith(reference)]
    if not found:
        return None
    if len(found) > 1:
        raise NotFound(f"{reference!r} is the name of several tasks", "use the id that `unikeel ps` shows")
    from json import loads

    from unikeel.engine.layout import daemon_directory

    run = daemon_directory(engine.root, session.configuration().run_root)
    text = read_text(f"{run}/tasks/{found[0].ident}/timeline.json")
    if not text:
        raise NotFound(f"task {reference} has no timeline yet", "it is kept from its creation on")
    return Timeline.from_json(loads(text))


def rendered(timeline: Timeline) -> str:
    """The table: step, milliseconds, share, what there is to say about it."""
    total = timeline.milliseconds
    depths: dict[str, int] = {}
    rows = []
    for span in timeline.spans:
        depth = depths[span.parent] + 1 if span.parent in depths else 0
        depths[span.name] = depth
        rows.append(("  " * depth + span.name, f"{_milliseconds(span):.1f}", _share(span, total), _notes(span)))
    rows.append(("total", f"{total:.1f}", "100 %", ""))
    return table(("STEP", "MS", "SHARE", "NOTES"), rows, right=frozenset({1, 2}))


def _milliseconds(span: Span) -> float:
    return max(0.0, span.milliseconds)


def _share(span: Span, total: float) -> str:
    return f"{100 * _milliseconds(span) / total:.0f} %" if total > 0 else "-"


def _notes(span: Span) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in span.attributes.items())


def _value(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text[:19] + "…" if len(text) > 40 else text
