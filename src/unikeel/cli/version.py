"""``unikeel version``."""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Parsed
from unikeel.cli.output import json, line
from unikeel.lean import TYPE_CHECKING
from unikeel.version import VERSION

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "version",
    "show the version",
    options=(JSON,),
    details="JSON keys: version, python.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print it."""
    del session
    if parsed.flag("json"):
        import platform

        json({"version": VERSION, "python": platform.python_version()})
    else:
        line(f"unikeel {VERSION}")
    return 0
