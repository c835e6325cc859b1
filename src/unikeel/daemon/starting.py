"""The keeper with a daemon: as a service's main process, or started when it is needed."""

from __future__ import annotations

import os
import sys
import time
from typing import Final, NoReturn

from unikeel.config import Config
from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.keeper.client import KeeperClient, KeeperSettings, become
from unikeel.shim.node import open_task_layout

_LOOK_SECONDS: Final = 0.02
READY_SECONDS: Final = 30.0


def settings(root: str, config: Config, path: str, metrics: str) -> KeeperSettings:
    """The keeper's settings for a daemon of this state root; its directories are made. Errors: :func:`open_task_layout`."""
    layout = open_task_layout(root, config)
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {source!r}); from unikeel.daemon.main import main; sys.exit(main(sys.argv[1:]))"
    daemon = (sys.executable, "-I", "-c", code, layout.root, path, metrics)
    return KeeperSettings(
        layout.run, config.keeper_idle, config.keeper_view_idle, daemon, (("launch", layout.launch_socket),)
    )


def foreground(root: str, config: Config, path: str, metrics: str) -> NoReturn:
    """Become the keeper."""
    become(settings(root, config, path, metrics))


def detach(root: str, config: Config, path: str, metrics: str, seconds: float = READY_SECONDS) -> bool:
    """Start a keeper with a daemon unless one lives, and wait until the daemon serves; whether this call started it.

    :raise DeadlineExceeded: it does not serve in time. :raise Unavailable: it cannot be started.
    """
    keeper = KeeperClient(settings(root, config, path, metrics))
    try:
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
    log = os.path.join(settings(root, config, path, metrics).directory, "daemon.log")
    raise DeadlineExceeded(f"the daemon does not serve within {seconds:.0f} s", f"see {log}")
