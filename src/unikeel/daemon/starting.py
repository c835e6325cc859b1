"""The keeper with a daemon: as a service's main process, or started when it is needed."""

from __future__ import annotations

import os
import sys
import time
from typing import Final, NoReturn

from unikeel.config import Config
from unikeel.daemon.only_snapshotter import open_snapshotter_layout
from unikeel.engine.layout import snapshot_socket
from unikeel.errors import DeadlineExceeded, FailedPrecondition, Unavailable, of_system
from unikeel.keeper.client import KeeperClient, KeeperSettings, become
from unikeel.keeper.listeners import HELD
from unikeel.shim.node import open_task_layout
from unikeel.snapshots.service.claim import check_unclaimed
from unikeel.values import NamedTuple

_LOOK_SECONDS: Final = 0.02
READY_SECONDS: Final = 30.0


class Wanted(NamedTuple):
    """Which daemon: the state root, the configuration and its file (empty: the default one), the address for metrics (empty: that of the
    configuration). ``only``: what alone it is to serve, ``snapshotter``; empty: everything."""

    root: str
    config: Config
    path: str = ""
    metrics: str = ""
    only: str = ""


def settings(wanted: Wanted) -> KeeperSettings:
    """The keeper's settings for such a daemon; its directories are made. Errors: :func:`open_task_layout`."""
    config = wanted.config
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {source!r}); from unikeel.daemon.main import main; sys.exit(main(sys.argv[1:]))"
    words: tuple[str, ...] = (sys.executable, "-I", "-c", code)
    if wanted.only:
        snapshots = open_snapshotter_layout(wanted.root, config)
        daemon = (*words, snapshots.root, wanted.path, wanted.metrics, wanted.only)
        return KeeperSettings(
            snapshots.run, config.keeper_idle, config.keeper_view_idle, daemon, _sockets(snapshots.root, config)
        )
    layout = open_task_layout(wanted.root, config)
    daemon = (*words, layout.root, wanted.path, wanted.metrics)
    listen = (("launch", layout.launch_socket), *_sockets(layout.root, config))
    return KeeperSettings(layout.run, config.keeper_idle, config.keeper_view_idle, daemon, listen)


def _sockets(root: str, config: Config) -> tuple[tuple[str, str], ...]:
    """Where the keeper listens for the snapshotter from the beginning, so that containerd's calls wait for the daemon; nowhere if another process serves them."""
    try:
        check_unclaimed(root)
        paths = [(name, snapshot_socket(root, config.run_root, name)) for name in config.snapshotter_sockets.split()]
        os.makedirs(os.path.dirname(paths[0][1]), mode=0o700, exist_ok=True)
    except FailedPrecondition:
        return ()
    except OSError as error:
        raise of_system(error) from error
    return tuple((f"{HELD}{name}", path) for name, path in paths)


def _check_unserved(wanted: Wanted) -> None:
    """:raise FailedPrecondition: a daemon that serves nothing but snapshots has nothing to serve, because another one does."""
    if wanted.only:
        check_unclaimed(os.path.abspath(wanted.root))


def foreground(wanted: Wanted) -> NoReturn:
    """Become the keeper. :raise FailedPrecondition: there is nothing to serve."""
    keeper = settings(wanted)
    _check_unserved(wanted)
    become(keeper)


def detach(wanted: Wanted, seconds: float = READY_SECONDS) -> bool:
    """Start a keeper with a daemon unless one lives, and wait until the daemon serves; whether this call started it.

    :raise FailedPrecondition: there is nothing to serve. :raise DeadlineExceeded: it does not serve in time. :raise Unavailable: it cannot be started.
    """
    chosen = settings(wanted)
    keeper = KeeperClient(chosen)
    try:
        if not keeper.lives():
            _check_unserved(wanted)
        started = keeper.start_early()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if keeper.connection().call({"op": "hello"}).get("ready") is True:
                    return started
            except Unavailable:
                keeper.disconnect()
            time.sleep(_LOOK_SECONDS)
    finally:
        keeper.close()
    log = os.path.join(chosen.directory, "daemon.log")
    raise DeadlineExceeded(f"the daemon does not serve within {seconds:.0f} s", f"see {log}")
