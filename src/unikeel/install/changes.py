"""Changes of files: shown, done whole or not at all, and undone only where nobody has changed anything since."""

from __future__ import annotations

import difflib
import hashlib
import os
from typing import Final

from unikeel.errors import FailedPrecondition
from unikeel.values import NamedTuple

#: What is appended to the name of a file that was there before us.
BACKUP: Final = ".before-unikeel"
_LIMIT: Final = 64 << 20


class Change(NamedTuple):
    """One file's change. ``None``: it is not there. ``link``: the content is a symbolic link's target. ``edit``: the file is somebody else's."""

    path: str
    before: bytes | None
    after: bytes | None
    mode: int = 0o644
    link: bool = False
    edit: bool = False

    @property
    def action(self) -> str:
        """``create``, ``change``, ``remove`` or ``keep``."""
        if self.before == self.after:
            return "keep"
        if self.before is None:
            return "create"
        return "remove" if self.after is None else "change"


def current(path: str, *, link: bool = False) -> bytes | None:
    """What is at a path. :raise FailedPrecondition: something that is no file there."""
    try:
        if link:
            return os.fsencode(os.readlink(path))
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise FailedPrecondition(f"{path} is a directory") from None
    except OSError as error:
        if link and os.path.lexists(path):
            raise FailedPrecondition(f"{path} is there, and is no symbolic link") from error
        raise
    if len(data) > _LIMIT:
        raise FailedPrecondition(f"{path} is larger than {_LIMIT} bytes")
    return data


def digest(data: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(data).hexdigest()


def shown(change: Change) -> str:
    """A unified diff; of a binary file, what it is."""
    if change.action == "keep":
        return ""
    if change.link:
        target = os.fsdecode(change.after or change.before or b"")
        return f"{'-' if change.after is None else '+'} {change.path} -> {target}\n"
    before, after = _lines(change.before), _lines(change.after)
    if before is None or after is None:
        signs = [(sign, data) for sign, data in (("-", change.before), ("+", change.after)) if data is not None]
        return "".join(
            f"{sign} {change.path}: a program, {len(data)} bytes, sha256 {digest(data)[:16]}…\n" for sign, data in signs
        )
    names = (
        "/dev/null" if change.before is None else change.path,
        "/dev/null" if change.after is None else change.path,
    )
    lines = difflib.unified_diff(before, after, *names)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _lines(data: bytes | None) -> list[str] | None:
    """The lines of a text; ``None`` for anything else."""
    try:
        text = (data or b"").decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.splitlines(keepends=True)


def backup_path(change: Change) -> str:
    """Where a copy of what was there before is kept; empty: nothing was, or nothing is left of it to keep."""
    return change.path + BACKUP if change.action == "change" and not change.link else ""


def write(change: Change) -> None:
    """Do it: the new content appears whole; an edited file keeps its mode and owner. :raise FailedPrecondition: the file has changed meanwhile."""
    if current(change.path, link=change.link) != change.before:
        raise FailedPrecondition(f"{change.path} was changed by somebody else in this moment", "run the command again")
    if change.after is None:
        if change.before is not None:
            os.unlink(change.path)
        return
    path = change.path if change.link else os.path.realpath(change.path)
    part = f"{path}.unikeel-part"
    if os.path.lexists(part):
        os.unlink(part)
    try:
        if change.link:
            os.symlink(os.fsdecode(change.after), part)
        else:
            _write_file(part, change.after, path if change.edit else "", change.mode)
        os.replace(part, path)
    except BaseException:
        if os.path.lexists(part):
            os.unlink(part)
        raise


def _write_file(part: str, data: bytes, model: str, mode: int) -> None:
    """A new file, with the mode and owner of ``model`` if that is there."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        if model and os.path.exists(model):
            status = os.stat(model)
            os.fchown(fd, status.st_uid, status.st_gid)
            mode = status.st_mode & 0o7777
        os.fchmod(fd, mode)
        file.flush()
        os.fsync(fd)
