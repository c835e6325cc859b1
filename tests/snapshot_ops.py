"""Sequences of calls on a snapshot store, some of them in a process that is killed on the way, compared with the same calls on the model in memory.

Whoever generates the sequences says what a store's process is (:class:`World`). A killed call has either happened or not, as the store itself tells after
reconciling; the model then follows it.
"""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import unikeel.records.failpoint
from unikeel.errors import UnikeelError
from unikeel.snapshots.contract import Info, Kind, Mount, SnapshotStore
from unikeel.testing.fake_snapshots import FakeStore
from unikeel.testing.snapshot_suite import read_content, write_content

NAMES: Final = ("a", "b", "c", "d")
PARENTS: Final = ("", "", "a", "b", "c", "d")
LABELS: Final[tuple[Mapping[str, str], ...]] = ({}, {"k": "1"}, {"k": "2", "l.m": ""})
#: Of imported images, in bytes.
SIZES: Final = (1 << 16, 1 << 20)
#: The latest fail point of a call at which it is killed; calls with fewer are not killed.
LAST_POINT: Final = 9


class Op(NamedTuple):
    """A call. :ivar kill: the number of the fail point, from 0, at which its process is killed; None: it is not."""

    kind: str
    name: str
    other: str = ""
    labels: Mapping[str, str] = {}
    size: int = SIZES[0]
    kill: int | None = None


KINDS: Final = ("prepare", "view", "commit", "commit", "import", "remove", "update", "write", "cleanup")


def random_op(choose: random.Random, kinds: tuple[str, ...] = KINDS) -> Op:
    """Any call; one in four is killed."""
    return Op(
        choose.choice(kinds),
        choose.choice(NAMES),
        choose.choice(PARENTS),
        choose.choice(LABELS),
        choose.choice(SIZES),
        choose.randint(0, LAST_POINT) if choose.random() < 0.25 else None,
    )


class Process(Protocol):
    """One process's store."""

    @property
    def store(self) -> SnapshotStore: ...
    def close(self) -> None: ...


#: Makes a process of the store that is tried. Called in children, too.
World = Callable[[], Process]


def call(store: SnapshotStore, op: Op, number: int) -> object:
    """Make a call. :param number: tells the content that is written from all other."""
    match op.kind:
        case "prepare":
            return store.prepare(op.name, op.other, op.labels)
        case "view":
            return store.view(op.name, op.other, op.labels)
        case "import":
            return store.import_committed(op.name, op.labels, lambda fd: os.ftruncate(fd, op.size))
        case "update":
            return store.update(op.name, op.labels)
        case "commit":
            store.commit(op.name, op.other or "a", op.labels)
        case "remove":
            store.remove(op.name)
        case "write":
            (mount,) = store.mounts(op.name)
            if "rw" in mount.options:
                write_content(mount, str(number))
        case "spare":
            getattr(store, "make_spares", lambda _name, _count: None)(op.name, 1)
        case _:
            store.cleanup()
    return None


def run(world: World, ops: list[Op], empty_size: int) -> None:
    """Make all calls on a new store and on the model, and compare everything after each."""
    model = FakeStore(empty_size=empty_size)
    process = world()
    try:
        for number, op in enumerate(ops):
            if op.kill is None or op.kind == "write":
                assert _outcome(process.store, op, number) == _outcome(model, op, number), op
            else:
                _killed(world, op, number)
                assert process.store.reconcile().faulty == (), op
                if _listed(process.store) != _listed(model):
                    _outcome(model, op, number)
            assert _listed(process.store) == _listed(model), op
        _compare_content(process.store, model)
    finally:
        process.close()
        model.close()


def _outcome(store: SnapshotStore, op: Op, number: int) -> object:
    """What a call gives, without what legitimately differs: times, places and how many were cleaned up."""
    try:
        result = call(store, op, number)
    except UnikeelError as error:
        return None if op.kind == "spare" else type(error)
    if isinstance(result, Info):
        return _plain(result)
    if isinstance(result, list):
        return [(mount.type, "ro" in mount.options) for mount in result if isinstance(mount, Mount)]
    return result


def _plain(info: Info) -> tuple[str, str, Kind, dict[str, str]]:
    return info.name, info.parent, info.kind, dict(info.labels)


def _listed(store: SnapshotStore) -> list[tuple[str, str, Kind, dict[str, str]]]:
    return sorted((_plain(info) for info in store.list()), key=lambda entry: entry[0])


def _compare_content(store: SnapshotStore, model: FakeStore) -> None:
    """A view or commit of what was removed and made again would show here."""
    for info in model.list():
        expected, disk = model.disk(info.name), store.disk(info.name)
        assert (disk.size, disk.read_only) == (expected.size, expected.read_only), info
        if wanted := read_content(expected.path).strip("\0"):
            assert read_content(disk.path).strip("\0") == wanted, info


class _Nth:
    """Equal to the name of the fail point that is passed as the nth."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __eq__(self, other: object) -> bool:
        self._left -= 1
        return self._left == -1

    __hash__ = None  # type: ignore[assignment]


def _killed(world: World, op: Op, number: int) -> None:
    """Make a call in a process that is killed at a fail point, if it comes that far."""
    pid = os.fork()
    if pid == 0:
        _child(world, op, number)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    else:
        assert status == 0, op


def _child(world: World, op: Op, number: int) -> None:
    """Never returns."""
    status = 1
    try:
        process = world()
        points = unikeel.records.failpoint
        points._ARMED, points._TRACE, points._FILE, points._WANTED = True, "", "", _Nth(op.kill or 0)  # type: ignore[assignment]
        with suppress(UnikeelError):
            call(process.store, op, number)
        status = 0
    except BaseException:  # noqa: BLE001 (a child must not return into the test)
        traceback.print_exc()
    finally:
        os._exit(status)
