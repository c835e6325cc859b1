"""Doing what was planned: the record first, then each file; whatever is interrupted can be repeated, and taken back."""

from __future__ import annotations

import os

from unikeel.install import record
from unikeel.install.changes import Change, current, write
from unikeel.install.planning import Plan
from unikeel.install.record import DIRECTORY, Entry


def carry_out(plan: Plan, root: str) -> None:
    """Write what is to be installed; ``root`` has the record."""
    entries = {entry.path: entry for entry in plan.kept}
    entries.update({path: Entry(path, DIRECTORY) for path in plan.directories})
    for step in plan.steps:
        if step.entry is not None:
            entries.pop(step.change.path, None)
            entries[step.change.path] = step.entry
    record.write(root, tuple(entries.values()))
    for path in plan.directories:
        os.makedirs(path, mode=0o755, exist_ok=True)
    for step in plan.steps:
        if step.change.action == "keep":
            continue
        if step.entry is not None and step.entry.backup and not os.path.lexists(step.entry.backup):
            _keep_copy(step.change, step.entry.backup)
        write(step.change)


def _keep_copy(change: Change, backup: str) -> None:
    assert change.before is not None
    status = os.stat(change.path)
    write(Change(backup, None, change.before, status.st_mode & 0o7777))
    os.chown(backup, status.st_uid, status.st_gid)


def take_back(plan: Plan, root: str, extra: tuple[Change, ...] = ()) -> None:
    """Undo what was installed; copies of what was there before go where they are back in place."""
    originals = {step.entry.backup: step.change for step in plan.steps if step.entry is not None and step.entry.backup}
    for change in (*(step.change for step in plan.steps), *extra):
        write(change)
    for backup in plan.backups:
        undone = originals.get(backup)
        if undone is not None and current(backup) == undone.after:
            os.unlink(backup)
    for path in plan.directories:
        if os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)
    record.write(root, plan.kept)
