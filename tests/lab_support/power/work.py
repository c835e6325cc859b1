"""Random calls of a store, each journaled before and after it, until a given number of them is done or somebody kills this process."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Final

from lab_support.power import journal
from lab_support.power.journal import CLEANUP, COMMIT, PREPARE, REMOVE, SYNC, VIEW, WRITE, State, Step
from unikeel.snapshots.contract import SnapshotStore

#: So many snapshots at most; then only Remove makes room.
_MOST: Final = 24
_WEIGHTS: Final = {PREPARE: 5, WRITE: 5, SYNC: 2, COMMIT: 3, VIEW: 1, REMOVE: 2, CLEANUP: 1}


def chosen(numbers: random.Random, state: State, count: int) -> Step:
    """The next call: one that must succeed. ``count``: how many there were, so that names and patterns are new."""
    committed = [name for name, snapshot in state.items() if snapshot.kind == "committed"]
    active = [name for name, snapshot in state.items() if snapshot.kind == "active"]
    able = {PREPARE: True, WRITE: active, SYNC: active, COMMIT: active, VIEW: committed}
    able |= {REMOVE: journal.leaves(state), CLEANUP: True}
    if len(state) >= _MOST:
        able |= {PREPARE: False, VIEW: False}
    kinds = [kind for kind in _WEIGHTS if able[kind]]
    [kind] = numbers.choices(kinds, [_WEIGHTS[kind] for kind in kinds])
    if kind == PREPARE:
        return Step(PREPARE, f"a{count}", numbers.choice([*committed, ""] if committed else [""]))
    if kind == WRITE:
        return Step(WRITE, numbers.choice(active), "", numbers.randrange(journal.SLOTS), count)
    if kind == SYNC:
        return Step(SYNC, numbers.choice(active))
    if kind == COMMIT:
        return Step(COMMIT, f"c{count}", numbers.choice(active))
    if kind == VIEW:
        return Step(VIEW, f"v{count}", numbers.choice(committed))
    return Step(REMOVE, numbers.choice(journal.leaves(state))) if kind == REMOVE else Step(CLEANUP)


def carry_out(store: SnapshotStore, step: Step) -> None:
    """Make a call. What is written is not flushed: Commit must do that, or a guest."""
    if step.operation == PREPARE:
        store.prepare(step.key, step.other)
    elif step.operation == VIEW:
        store.view(step.key, step.other)
    elif step.operation == COMMIT:
        store.commit(step.key, step.other)
    elif step.operation == REMOVE:
        store.remove(step.key)
    elif step.operation == CLEANUP:
        store.cleanup()
    elif step.operation == SYNC:
        file = os.open(store.disk(step.key).path, os.O_RDWR | os.O_CLOEXEC)
        os.fdatasync(file)
        os.close(file)
    else:
        with open(store.disk(step.key).path, "r+b", buffering=0) as image:
            image.seek(journal.SLOTS_AT + step.slot * journal.SLOT_BYTES)
            image.write(journal.pattern(step.number))


def work(store: SnapshotStore, path: str, steps: int, seed: int, told: Callable[[Step], object]) -> None:
    """Make calls.

    :param path: the journal, a new file. :param told: called when an answer is in the journal.
    """
    numbers, state = random.Random(seed), journal.after([])
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)

    def write(text: str) -> None:
        os.write(file, text.encode())
        os.fsync(file)

    for count in range(1, steps + 1):
        step = chosen(numbers, state, count)
        write(journal.line(step, done=False))
        carry_out(store, step)
        write(journal.line(step, done=True))
        journal.apply(state, step)
        told(step)
    os.close(file)
