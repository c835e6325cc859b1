"""``unikeel daemon``: the process that serves containerd."""

from __future__ import annotations

import os

from unikeel.cli.options import Command, Option, Parsed
from unikeel.cli.output import line
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "daemon",
    "run the daemon that serves containerd",
    options=(
        Option(("--foreground",), "stay, as a service's main process (the default)"),
        Option(("--detach",), "return when the daemon serves; one that runs already is fine"),
        Option(("--metrics",), "serve metrics there, too, beside the socket `metrics.sock`", "ADDRESS:PORT"),
        Option(
            ("--only",),
            "serve nothing else: a daemon of its own, beside which another one may serve the rest",
            "WHAT",
            choices=("snapshotter",),
        ),
    ),
    examples=(
        ("unikeel daemon --detach", "start it in the background"),
        ("unikeel daemon --metrics 127.0.0.1:9101", "with metrics over HTTP"),
    ),
    details="It serves tasks and snapshots. The daemon may be killed at any time: a small process, the keeper, starts it again, and keeps the guests and containerd's connections meanwhile. "
    "Its sockets and logs are in /run/unikeel/daemon, or in the directory `daemon` of `run_root`.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Become the keeper, or start it."""
    return begin(parsed, session, parsed.text("only"))


def begin(parsed: Parsed, session: Session, only: str) -> int:
    """The same, for a daemon that serves ``only`` this (empty: everything)."""
    from unikeel import config as configuration
    from unikeel.daemon import starting
    from unikeel.engine.engine import ROOT_VARIABLE

    if parsed.flag("foreground") and parsed.flag("detach"):
        raise InvalidArgument("--foreground and --detach exclude each other")
    config = configuration.load(session.config)
    path = session.config or os.environ.get(configuration.VARIABLE, "")
    root = session.root or os.environ.get(ROOT_VARIABLE, "") or config.root
    wanted = starting.Wanted(root, config, os.path.abspath(path) if path else "", parsed.text("metrics"), only)
    if not parsed.flag("detach"):
        starting.foreground(wanted)
    if not starting.detach(wanted):
        line("the daemon is running already")
    return 0
