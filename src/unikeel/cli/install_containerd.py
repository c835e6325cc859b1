"""``unikeel install containerd``: the runtime for a containerd of this host."""

from __future__ import annotations

import os
import sys

from unikeel.cli.failures import say
from unikeel.cli.options import DIRECTORIES, FILES, JSON, Command, Option, Parsed
from unikeel.cli.output import json, line, write
from unikeel.errors import FailedPrecondition, InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from unikeel.cli.session import Session
    from unikeel.install.changes import Change
    from unikeel.install.planning import Plan

_UNITS = "/etc/systemd/system"
#: What containerd has as PATH when systemd starts it.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

COMMAND = Command(
    "install containerd",
    "make containerd run unikernels with io.containerd.unikeel.v2; every change is shown first",
    options=(
        Option(
            ("--containerd-config",),
            "containerd's configuration, /etc/containerd/config.toml unless given",
            "FILE",
            complete=FILES,
        ),
        Option(
            ("--bin-dir",),
            "put the launcher into DIR, /usr/local/bin unless given; it has to be on containerd's PATH",
            "DIR",
            complete=DIRECTORIES,
        ),
        Option(
            ("--runtime-class-handler",),
            "what Kubernetes' RuntimeClass calls the runtime, unikeel unless given",
            "NAME",
        ),
        Option(
            ("--snapshotter",),
            "have images of the handler's pods in this snapshotter of containerd; unikeel is our own, which containerd is told of",
            "NAME",
        ),
        Option(("--systemd",), "write unikeel.socket and unikeel.service; so it is where systemd runs"),
        Option(("--no-systemd",), "no units: the daemon is started with the first container"),
        Option(("--unit-dir",), f"put the units into DIR, {_UNITS} unless given", "DIR", complete=DIRECTORIES),
        Option(("-y", "--yes"), "do not ask"),
        Option(("--dry-run",), "show the changes, and change nothing"),
        Option(("--uninstall",), "take back what was written; what somebody has changed since is named and left"),
        JSON,
    ),
    examples=(
        ("unikeel install containerd --dry-run", "what would be written where"),
        ("unikeel install containerd --snapshotter devmapper --yes", "without asking"),
        ("unikeel install containerd --snapshotter unikeel", "with our own snapshotter"),
        ("unikeel install containerd --uninstall", "all of it taken back"),
    ),
    details="With containerd 2.x the runtime is a file of its own, conf.d/unikeel.toml beside the main configuration, which gets an import of it; with 1.x, where an "
    "imported file would replace the whole table of a plugin, it is a marked block at the end of the main configuration. Nothing is restarted: "
    "the last lines say what to do. JSON keys: changes, each with path, action (create, change, remove), diff and backup; left; next; and written.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Plan, show, ask, do."""
    from unikeel.install import changes

    root = session.state_root(session.configuration())
    uninstall = parsed.flag("uninstall")
    plan, extra = (_undoing if uninstall else _doing)(parsed, session, root)
    todo = (*plan.changes, *extra)
    if not parsed.flag("json"):
        write("".join(changes.shown(change) for change in todo))
        for sentence in plan.left:
            say(sentence)
    wanted = (bool(todo) or uninstall) and not parsed.flag("dry-run")
    if wanted and todo:
        _ask(parsed)
    if wanted:
        from unikeel.install.executing import carry_out, take_back

        _as_root(lambda: take_back(plan, root, extra) if uninstall else carry_out(plan, root))
    _tell(parsed, plan, todo, written=wanted)
    return 0


def _doing(parsed: Parsed, session: Session, root: str) -> tuple[Plan, tuple[Change, ...]]:
    from unikeel.install import planning, record, situation, texts
    from unikeel.shim.launcher import binary

    with open(binary(), "rb") as file:
        launcher = file.read()
    config = os.path.abspath(parsed.text("containerd-config") or "/etc/containerd/config.toml")
    bin_dir = os.path.abspath(parsed.text("bin-dir") or "/usr/local/bin")
    command = _own_command()
    options = (("--root", root) if session.root else ()) + (
        ("--config", os.path.abspath(session.config)) if session.config else ()
    )
    wishes = planning.Wishes(
        launcher=launcher,
        command=command,
        bin_dir=bin_dir,
        handler=texts.check_handler(parsed.text("runtime-class-handler") or texts.HANDLER),
        snapshotter=texts.check_snapshotter(parsed.text("snapshotter")),
        unit_dir=_unit_dir(parsed),
        link_command=_needs_link(command, bin_dir),
        options=options,
        snapshots=_snapshot_socket(session, root),
    )
    found = situation.examine(config, situation.containerd_version())
    return planning.install(wishes, found, record.read(root)), ()


def _snapshot_socket(session: Session, root: str) -> str:
    """Where the daemon that is installed serves the first of its consumers."""
    from unikeel.engine.layout import snapshot_socket

    config = session.configuration()
    return snapshot_socket(root, config.run_root, config.snapshotter_sockets.split()[0])


def _undoing(parsed: Parsed, session: Session, root: str) -> tuple[Plan, tuple[Change, ...]]:
    del session
    from unikeel.install import planning, record

    plan = planning.uninstall(record.read(root))
    return plan, planning.dangling(os.path.abspath(parsed.text("unit-dir") or _UNITS), plan.changes)


def _unit_dir(parsed: Parsed) -> str:
    """Where units go; empty: nowhere. :raise InvalidArgument: both was asked for."""
    if parsed.flag("systemd") and parsed.flag("no-systemd"):
        raise InvalidArgument("--systemd and --no-systemd exclude each other")
    wanted = parsed.flag("systemd") or (os.path.isdir("/run/systemd/system") and not parsed.flag("no-systemd"))
    return os.path.abspath(parsed.text("unit-dir") or _UNITS) if wanted else ""


def _own_command() -> str:
    """The path of the program that runs here, by which others can start it, too."""
    import shutil

    beside = os.path.join(os.path.dirname(sys.executable), "unikeel")
    found = next((path for path in (os.path.abspath(sys.argv[0]), beside) if _is_ours(path)), shutil.which("unikeel"))
    if not found:
        raise FailedPrecondition("the command unikeel is not on the PATH", "install the package with pip")
    return os.path.abspath(found)


def _is_ours(path: str) -> bool:
    return os.path.basename(path) == "unikeel" and os.access(path, os.X_OK)


def _needs_link(command: str, bin_dir: str) -> bool:
    """Whether the launcher would not find the command, neither on the system's PATH nor beside itself."""
    import shutil

    beside = os.path.join(bin_dir, "unikeel")
    if os.path.islink(beside) and os.readlink(beside) == command:
        return True  # ours: it stays in the plan, to be kept
    return shutil.which("unikeel", path=f"{_SYSTEM_PATH}:{bin_dir}") is None


def _ask(parsed: Parsed) -> None:
    """:raise FailedPrecondition: nobody agrees."""
    if parsed.flag("yes"):
        return
    if parsed.flag("json") or sys.stdin is None or not sys.stdin.isatty():
        raise FailedPrecondition("nothing was written: nobody can be asked", "--yes writes, --dry-run only shows")
    write("write this? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FailedPrecondition("nothing was written")


def _as_root(action: Callable[[], None]) -> None:
    """Do it. :raise PermissionDenied: as whoever we are, we may not."""
    from unikeel.errors import PermissionDenied

    try:
        action()
    except PermissionError as error:
        raise PermissionDenied(f"{error.filename} cannot be written: {error.strerror}", "run as root") from error


def _tell(parsed: Parsed, plan: Plan, todo: tuple[Change, ...], *, written: bool) -> None:
    """What was done, and what is left to do."""
    from unikeel.install.changes import shown

    following = _following(todo, uninstall=parsed.flag("uninstall"))
    backups = {step.change.path: step.entry.backup for step in plan.steps if step.entry is not None}
    if parsed.flag("json"):
        rows = [
            {
                "path": change.path,
                "action": change.action,
                "diff": shown(change),
                "backup": backups.get(change.path, ""),
            }
            for change in todo
        ]
        json({"changes": rows, "left": list(plan.left), "next": following, "written": written and bool(todo)})
        return
    if not todo:
        line("nothing to do")
    elif not written:
        line("nothing was written (--dry-run)")
    else:
        for change in todo:
            kept = backups.get(change.path, "") if not parsed.flag("uninstall") else ""
            line(f"{change.action}d {change.path}" + (f" (as it was: {kept})" if kept else ""))
        for sentence in following:
            line(f"next: {sentence}")


def _following(todo: tuple[Change, ...], *, uninstall: bool) -> list[str]:
    """The commands that bring changes into effect."""
    commands = []
    if any(change.path.endswith((".service", ".socket")) for change in todo):
        reload = "systemctl daemon-reload"
        sockets = ["unikeel.socket"]
        if any(change.path.endswith("unikeel-snapshots.socket") for change in todo):
            sockets.append("unikeel-snapshots.socket")
        names = " ".join(sockets)
        stop, begin = f"systemctl stop {names} unikeel.service", f"systemctl enable --now {names}"
        commands += [stop, reload] if uninstall else [reload, begin]
    if any(change.path.endswith(".toml") for change in todo):
        commands.append("systemctl restart containerd")
    return commands
