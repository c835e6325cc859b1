"""``unikeel config``: the configuration in effect."""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Parsed
from unikeel.cli.output import json, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "config",
    "print the configuration in effect, as a TOML file with every key",
    options=(JSON,),
    examples=(("unikeel config > /etc/unikeel/config.toml", "a file to begin with"),),
    details="`root` is the one that --root or UNIKEEL_ROOT names, if they do. JSON keys: those of docs/configuration.md.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print it."""
    from unikeel import config

    found = session.configuration()
    found = found._replace(root=session.state_root(found))
    if parsed.flag("json"):
        json({key.name: getattr(found, config.field_of(key.name)) for key in config.KEYS})
    else:
        write(config.dump(found).lstrip("\n"))
    return 0
