"""What was asked of a store, and what it answered; from that, what must be there after a cut. Pure.

A line is written before each call and one after its answer, each on the disk before anything goes on. One call at a time: so at most the last one is open, and
of that one either nothing or everything must have happened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

#: A snapshot's content is told by slots: places in its image, each filled with a pattern.
SLOTS: Final = 16
SLOT_BYTES: Final = 64 << 10
#: Where the slots begin: behind what a file system's own tables take. The images are never mounted after they were written into.
SLOTS_AT: Final = 8 << 20

PREPARE: Final = "prepare"
VIEW: Final = "view"
WRITE: Final = "write"
SYNC: Final = "sync"
COMMIT: Final = "commit"
REMOVE: Final = "remove"
CLEANUP: Final = "cleanup"


class Step(NamedTuple):
    """One call: of ``key`` (the name, for Commit's result and Remove), with a parent or (Commit) the key that becomes it; Write: slot and number."""

    operation: str
    key: str = ""
    other: str = ""
    slot: int = 0
    number: int = 0


class Snapshot(NamedTuple):
    """What is known of a snapshot: ``content`` are the numbers of the patterns in its slots, ``flushed`` those of them that no cut may take."""

    kind: str
    parent: str
    content: Mapping[int, int]
    flushed: Mapping[int, int] = {}


State = dict[str, Snapshot]


def pattern(number: int) -> bytes:
    """The content of a slot."""
    return hashlib.shake_128(number.to_bytes(8, "big")).digest(SLOT_BYTES)


def line(step: Step, *, done: bool) -> str:
    """A line of the journal."""
    return json.dumps([done, *step]) + "\n"


class Journal(NamedTuple):
    """The calls that were answered, in order, and the one that was not, if there is one."""

    answered: list[Step]
    pending: Step | None


def read(lines: Iterable[str]) -> Journal:
    """Read a journal; a last line that is cut short was not written."""
    answered: list[Step] = []
    pending: Step | None = None
    for text in lines:
        if not text.endswith("\n"):
            break
        done, *fields = json.loads(text)
        step = Step(*fields)
        if done:
            answered.append(step)
            pending = None
        else:
            pending = step
    return Journal(answered, pending)


def after(steps: Iterable[Step]) -> State:
    """What there is when all these were carried out."""
    state: State = {}
    for step in steps:
        apply(state, step)
    return state


def apply(state: State, step: Step) -> None:
    """What a call changes."""
    if step.operation in (PREPARE, VIEW):
        content = dict(state[step.other].content) if step.other else {}
        kind = "active" if step.operation == PREPARE else "view"
        state[step.key] = Snapshot(kind, step.other, content, content)
    elif step.operation == WRITE:
        found = state[step.key]
        flushed = {slot: number for slot, number in found.flushed.items() if slot != step.slot}
        state[step.key] = found._replace(content={**found.content, step.slot: step.number}, flushed=flushed)
    elif step.operation == SYNC:
        state[step.key] = state[step.key]._replace(flushed=state[step.key].content)
    elif step.operation == COMMIT:
        found = state.pop(step.other)
        state[step.key] = found._replace(kind="committed", flushed=found.content)
    elif step.operation == REMOVE:
        del state[step.key]


def possible(journal: Journal) -> list[State]:
    """The states of which one must be found: with the open call, and without it."""
    states = [after(journal.answered)]
    if journal.pending is not None:
        states.append(after([*journal.answered, journal.pending]))
    return states


def leaves(state: Mapping[str, Snapshot]) -> list[str]:
    """The snapshots on which nothing is built, which may be removed."""
    parents = {snapshot.parent for snapshot in state.values()}
    return [name for name in state if name not in parents]
