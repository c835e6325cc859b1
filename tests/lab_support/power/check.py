"""What a store has after a cut, against the journal that is on the same disk; afterwards everything must be removable, and nothing be left."""

from __future__ import annotations

from collections.abc import Mapping

from lab_support.power import journal
from lab_support.power.journal import Snapshot, State
from lab_support.power.stores import Opened
from unikeel.snapshots.contract import SnapshotStore


def check(opened: Opened, path: str) -> list[str]:
    """What is wrong, a sentence each. The store is empty when this returns, unless that says otherwise."""
    store = opened.store
    reconciled = store.reconcile(opened.is_dead)
    problems = [f"{name} is faulty" for name in reconciled.faulty]
    with open(path, encoding="utf-8") as file:
        found = journal.read(file)
    names = _names(store)
    states = journal.possible(found)
    state = next((state for state in states if _shape(state) == names), None)
    if state is None:
        return [*problems, f"there are {_told(names)}, but must be {_told(_shape(states[0]))}; open: {found.pending}"]
    problems += [problem for name, snapshot in state.items() for problem in _content(store, name, snapshot)]
    problems += _usable(store, state)
    return [*problems, *_emptied(opened)]


def _shape(state: State) -> dict[str, tuple[str, str]]:
    return {name: (snapshot.kind, snapshot.parent) for name, snapshot in state.items()}


def _names(store: SnapshotStore) -> dict[str, tuple[str, str]]:
    return {info.name: (info.kind.value, info.parent) for info in store.list()}


def _told(names: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({kind} of {parent or 'nothing'})" for name, (kind, parent) in sorted(names.items()))


def _content(store: SnapshotStore, name: str, snapshot: Snapshot) -> list[str]:
    """A committed snapshot has what was written before its Commit, and a view the same; an active one its parent's content, and what was flushed since."""
    problems = []
    with open(store.disk(name).path, "rb", buffering=0) as image:
        for slot, number in snapshot.flushed.items():
            image.seek(journal.SLOTS_AT + slot * journal.SLOT_BYTES)
            if image.read(journal.SLOT_BYTES) != journal.pattern(number):
                problems.append(f"slot {slot} of {name} ({snapshot.kind}) has lost what write {number} put there")
    return problems


def _usable(store: SnapshotStore, state: State) -> list[str]:
    """Every key can be mounted, and every committed snapshot built on."""
    for name, snapshot in state.items():
        if snapshot.kind != "committed":
            store.mounts(name)
    committed = [name for name, snapshot in state.items() if snapshot.kind == "committed"]
    for name in [*committed[:1], *committed[-1:]]:
        key = f"after-{name}"
        store.prepare(key, name)
        with open(store.disk(key).path, "rb") as image:
            image.read(1)
        store.remove(key)
    return []


def _emptied(opened: Opened) -> list[str]:
    store = opened.store
    while names := {info.name: Snapshot(info.kind.value, info.parent, {}) for info in store.list()}:
        for name in journal.leaves(names):
            store.remove(name)
    store.cleanup()
    return [f"left behind: {line}" for line in opened.left()]
