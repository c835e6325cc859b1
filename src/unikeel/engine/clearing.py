"""Taking away what a run, or a start that got nowhere, has left on the host: processes, sandbox, cgroups, bundle, sockets."""

from __future__ import annotations

import os

from unikeel.engine.containers import Container
from unikeel.engine.ending import Monitored, open_process
from unikeel.engine.layout import SERVERS
from unikeel.engine.services import Services
from unikeel.kernel import pidfd
from unikeel.kernel.paths import remove_tree
from unikeel.lean import signal
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import remains, sockets


def kill_monitor(services: Services, container: Container, seconds: float = 10.0) -> None:
    """Kill the container's recorded monitor if it lives, and wait until it is gone."""
    kill(services.containers.get(container.id), seconds)


def kill(monitored: Monitored, seconds: float = 10.0) -> bool:
    """Kill a recorded monitor if it lives, and wait until it is gone; whether it is."""
    process = open_process(monitored)
    if process is None:
        return True
    with process:
        pidfd.send(process, signal.SIGKILL)
        return pidfd.wait_exit(process, seconds)


def remove_sandbox(services: Services, container: Container, *, thorough: bool = False) -> None:
    """Kill what runs of a container, and take its sandbox, bundle and control sockets away; what is not there is fine.

    :param thorough: nobody can say how far a start had come: look for processes of it by their mark, too.
    """
    kill_monitor(services, container)
    if thorough:
        remains.kill_marked(container.id)
    failpoint("clear.killed")
    if container.settings.get("network") == "cni":
        services.attachments.release_or_say(container.id, services.notice)
    failpoint("clear.network")
    state = os.path.join(services.layout.runtime_state, container.id)
    if os.path.isdir(state):
        services.sandboxes.delete(container.id)
    failpoint("clear.deleted")
    remains.remove_cgroups(container.id)
    remove_tree(state)
    directory = services.layout.container(container.id)
    if any(os.path.lexists(os.path.join(directory, name)) for name in SERVERS):
        from unikeel.engine import sharing

        sharing.remove(services, services.layout, container.id)
    remove_tree(services.layout.bundle(container.id))
    for name in sockets.NAMES:
        path = os.path.join(services.layout.container(container.id), name)
        if os.path.lexists(path):
            os.unlink(path)
