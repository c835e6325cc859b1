"""``unikeel snapshotter``: a daemon that serves containerd's snapshots, and nothing else."""

from __future__ import annotations

from unikeel.cli.options import Command, Option, Parsed
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "snapshotter",
    "run a daemon that serves containerd's snapshots alone",
    options=(
        Option(("--foreground",), "stay, as a service's main process (the default)"),
        Option(("--detach",), "return when it serves; one that runs already is fine"),
        Option(("--metrics",), "serve metrics there, too, beside the socket `metrics.sock`", "ADDRESS:PORT"),
    ),
    examples=(
        ("unikeel snapshotter --detach", "start it in the background"),
        ("unikeel install containerd --snapshotter unikeel", "have containerd use it"),
    ),
    details="The same as `unikeel daemon --only snapshotter`: for a containerd that has ordinary containers only, or to have the snapshots in a process of their own. "
    "Plain `unikeel daemon` serves them, too, unless this one does. The sockets are in /run/unikeel/snapshots, logs in /run/unikeel/snapshotter; "
    "docs/snapshotter.md is the guide.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Become the keeper, or start it."""
    from unikeel.cli import daemon

    return daemon.begin(parsed, session, "snapshotter")
