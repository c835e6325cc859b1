"""Finishing or undoing what dead processes left: run at the beginning of every command, cheap when there is nothing to do.

Only what belongs to a dead owner is touched (:mod:`unikeel.records.owners`). Each thing done is said to the user in one sentence.
"""

from __future__ import annotations

import os

from unikeel.engine.containers import Container
from unikeel.engine.creating import discard
from unikeel.engine.ending import adopt, exit_report, process_lives, wait_for_exit
from unikeel.engine.services import Services
from unikeel.errors import FailedPrecondition, NotFound, UnikeelError
from unikeel.kernel.locks import locked
from unikeel.model.states import ContainerState
from unikeel.records import owners

_REPORT_SECONDS = 3.0
#: Those that have a network.
_CONNECTED = frozenset({ContainerState.STARTING, ContainerState.RUNNING})
_HALF_DONE = frozenset({ContainerState.CREATING, ContainerState.STARTING, ContainerState.REMOVING})


def reconcile(services: Services) -> None:
    """Bring records and reality together for everything that no living process works on; one process at a time."""
    if not _needed(services, services.containers.list()):
        return
    with locked(os.path.join(services.layout.root, "reconcile.lock")):
        containers = services.containers.list()
        kept = _kept(services, containers)
        for container in containers:
            try:
                _one(services, container, kept)
            except NotFound:
                continue
            except UnikeelError as error:
                services.notice(f"container {container.name}: {error}")
        for ident in _left_networks(services, services.containers.list()):
            services.attachments.release_or_say(ident, services.notice)
        if _has_dead_owners(services):
            _half_done(services)
            owners.sweep(services.layout.owners)


def let_go(services: Services) -> None:
    """This process ends: what it has started belongs to nobody from now on, and what of it has ended meanwhile is dealt with.

    In this order: an end that comes later finds no owner, and is dealt with by the command that the keeper then runs.
    """
    for container in services.containers.owned(services.owner.token):
        if container.state in (ContainerState.RUNNING, ContainerState.EXITED):
            services.containers.update(container.id, owner="")
            try:
                _settle_end(services, container)
            except NotFound:
                continue
            except UnikeelError as error:
                services.notice(f"container {container.name}: {error}")


def _settle_end(services: Services, container: Container) -> None:
    if container.state is ContainerState.RUNNING and exit_report(services, container) is not None:
        _collect(services, container)
    now = services.containers.get(container.id)
    if now.state is ContainerState.EXITED and not now.owner:
        _remove_if_unwanted(services, now)


def _collect(services: Services, container: Container, lost: str = "") -> None:
    from unikeel.engine.removing import collect  # seldom needed, and every command looks here

    collect(services, container, lost)


def _needed(services: Services, containers: list[Container]) -> bool:
    """Whether there is anything to do: a running container is fine when a keeper keeps it, any other when no dead command owns it."""
    if _has_dead_owners(services) or _left_networks(services, containers):
        return True
    kept = _kept(services, containers)
    return any(
        container.id not in kept if container.state is ContainerState.RUNNING else _is_left(services, container)
        for container in containers
    )


def _left_networks(services: Services, containers: list[Container]) -> list[str]:
    """The containers that have a network, though none runs, starts, or is being removed; asked of the table itself, since few have one at all."""
    if not services.database.query("SELECT 1 FROM sqlite_master WHERE name = 'network_attachments'"):
        return []
    connected = [str(ident) for (ident,) in services.database.query("SELECT container FROM network_attachments")]
    busy = {
        container.id
        for container in containers
        if container.state in _CONNECTED or (container.owner and not services.owner.is_dead(container.owner))
    }
    return [ident for ident in connected if ident not in busy]


def _is_left(services: Services, container: Container) -> bool:
    """Whether something must be done about a container that does not run."""
    if container.owner and not services.owner.is_dead(container.owner):
        return False
    return container.state in _HALF_DONE or _is_unwanted(services, container)


def _is_unwanted(services: Services, container: Container) -> bool:
    """``--rm``: what has run is removed once nobody waits for it; what has not, only if the command that made it to run it was killed."""
    if not container.auto_remove:
        return False
    return container.state is ContainerState.EXITED or owners.was_killed(services.layout.owners, container.owner)


def _has_dead_owners(services: Services) -> bool:
    suffix = owners.SUFFIX
    return any(
        services.owner.is_dead(name.removesuffix(suffix))
        for name in os.listdir(services.layout.owners)
        if name.endswith(suffix)
    )


def _kept(services: Services, containers: list[Container]) -> frozenset[str]:
    """The containers whose monitors a living keeper keeps."""
    if not any(container.state is ContainerState.RUNNING for container in containers):
        return frozenset()
    return frozenset(services.keeper.monitors())


def _one(services: Services, container: Container, kept: frozenset[str]) -> None:
    if container.state is ContainerState.RUNNING:
        _running(services, container, kept)
        return
    if _works_on_it(services, container):
        return
    # Its owner may have done its work after we read this, and ended well: what it left is what counts, and it changes no more.
    container = services.containers.get(container.id)
    if container.state is ContainerState.RUNNING or _works_on_it(services, container):
        return
    if container.state is ContainerState.CREATING:
        discard(services, container)
        services.notice(f"removed container {container.name}: the command that was creating it was killed")
    elif container.state is ContainerState.STARTING:
        _undo_start(services, container)
    elif container.state is ContainerState.REMOVING:
        from unikeel.engine.removing import finish_removal

        finish_removal(services, container)
        services.notice(f"finished removing container {container.name}: the command that was removing it was killed")
    else:
        _remove_if_unwanted(services, container)


def _works_on_it(services: Services, container: Container) -> bool:
    """Whether a living process does."""
    return bool(container.owner) and not services.owner.is_dead(container.owner)


def _undo_start(services: Services, container: Container) -> None:
    from unikeel.engine.starting import undo_start

    unwanted = container.auto_remove
    undo_start(services, container, "the command that was starting it was killed")
    services.notice(f"undid the start of container {container.name}: the command that was starting it was killed")
    if unwanted:
        _remove(services, container)


def _remove_if_unwanted(services: Services, container: Container) -> None:
    if _is_unwanted(services, container):
        _remove(services, container)


def _remove(services: Services, container: Container) -> None:
    from unikeel.engine.removing import remove

    try:
        remove(services, services.containers.get(container.id))
    except FailedPrecondition:
        return  # another command has begun something with it meanwhile


def _running(services: Services, container: Container, kept: frozenset[str]) -> None:
    """A container that ran when last seen: it still does, or it has ended, or its keeper was killed."""
    if exit_report(services, container) is not None:
        _collect(services, container)
    elif not process_lives(container):
        _await_report_or_give_up(services, container)
    elif container.id not in kept:
        _adopt(services, container)
    else:
        return
    now = services.containers.get(container.id)
    waited_for = bool(now.owner) and not services.owner.is_dead(now.owner)
    if now.state is ContainerState.EXITED and not waited_for:
        _remove_if_unwanted(services, now)


def _adopt(services: Services, container: Container) -> None:
    if adopt(services, container):
        services.notice(f"adopted the running container {container.name}: its keeper had been killed")
    else:
        _await_report_or_give_up(services, container)


def _await_report_or_give_up(services: Services, container: Container) -> None:
    """The process is gone and nothing is written yet: the keeper is about to, or it was killed before it could."""
    if container.boot_id != owners.boot_id():
        _collect(services, container, lost="the host was restarted")
        services.notice(f"container {container.name} ended: the host was restarted")
        return
    if services.keeper.lives():
        wait_for_exit(services, container, _REPORT_SECONDS)
    known = exit_report(services, container) is not None
    _collect(services, container)
    if not known:
        services.notice(f"container {container.name} ended while no keeper was there: its exit status is unknown")


def _half_done(services: Services) -> None:
    """What dead owners left in the stores: snapshots, fills, copies, views, downloads."""
    from unikeel.engine import tasks

    undone = services.snapshots.reconcile(services.owner.is_dead)
    for name in undone.undone:
        services.notice(f"took back a half-made snapshot: {name}")
    for name in undone.faulty:
        services.notice(f"snapshot {name} has lost its content")
    known = {container.id for container in services.containers.list()} | tasks.idents(services.database)
    for freed in services.boot.reconcile(lambda container: container in known):
        services.notice(f"took back a half-made {freed.kind}: {freed.name}")
