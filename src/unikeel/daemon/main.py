"""The daemon's life: the link, the parts, until the keeper or a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from unikeel import config as configuration
from unikeel.config import Config
from unikeel.daemon.link import Link
from unikeel.daemon.looping import new_loop
from unikeel.daemon.only_snapshotter import SnapshotterParts, open_snapshotter_layout
from unikeel.daemon.parts import Parts
from unikeel.errors import UnikeelError
from unikeel.records.failpoint import failpoint
from unikeel.shim.node import open_task_layout

_LINK = 3
_LOG = logging.getLogger("unikeel.daemon")


def main(argv: Sequence[str]) -> int:
    """Serve until told to end; the exit code.

    :param argv: the state root, the configuration file (empty: the default one), the address for metrics (empty: that of the configuration), and
        ``snapshotter`` if nothing but snapshots is to be served.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    os.umask(0o022)  # whatever is for root alone is made with its mode; the sandboxes' root is for others, too
    os.set_inheritable(_LINK, False)
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write("unikeel-daemon")
    root, path, metrics, *only = argv
    try:
        config = configuration.load(path, {})
        if metrics:
            config = config._replace(daemon_metrics=metrics)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(root, config, only=bool(only)))
    except UnikeelError as error:
        _LOG.error("%s", error)
        return 1
    return 0


async def _serve(root: str, config: Config, *, only: bool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    parts: Parts | SnapshotterParts
    if only:
        parts = SnapshotterParts(open_snapshotter_layout(root, config), config)
    else:
        parts = Parts(open_task_layout(root, config), config, over.set)
    try:
        sock = socket.socket(fileno=_LINK)
        sock.setblocking(False)
        await parts.begin()
        link = await Link.attach(sock, parts.server, parts.connection_closed, over.set)
        if isinstance(parts, Parts):
            parts.connections = lambda: link.connections
        # What is there now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(5000, 20, 20)
        failpoint("daemon.ready")
        link.ready()
        _LOG.info("serving %s of %s", parts.summary, root)
        await over.wait()
        _LOG.info("ending")
    finally:
        await parts.close()


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What QMP's library runs into once a monitor is gone is told by whoever asked it; the rest is news."""
    future = context.get("future") or context.get("task")
    if "qmp" in repr(future).lower() or "qmp" in str(context.get("message", "")).lower():
        return
    loop.default_exception_handler(context)
