"""What was written, so that it can be taken back exactly: one JSON file in the state root."""

from __future__ import annotations

import json
import os
from typing import Final

from unikeel.errors import BadContent
from unikeel.values import NamedTuple

_NAME: Final = "install-containerd.json"
_FORMAT: Final = 1
#: What an entry can be: a file of ours, a link of ours, an import or a block in somebody else's file, a directory that we made.
FILE, LINK, IMPORT, BLOCK, DIRECTORY = "file", "link", "import", "block", "directory"
KINDS: Final = (FILE, LINK, IMPORT, BLOCK, DIRECTORY)


class Entry(NamedTuple):
    """One thing that was written.

    ``digest`` is of the whole file as we left it; ``backup`` is where a copy of what was there before is; ``detail`` is what an import names, or
    a link's target; ``created``: not empty if an edited file was not there at all.
    """

    path: str
    kind: str
    digest: str = ""
    backup: str = ""
    detail: str = ""
    created: str = ""


def path_of(root: str) -> str:
    """Where the record of a state root is."""
    return os.path.join(root, _NAME)


def read(root: str) -> tuple[Entry, ...]:
    """All entries, in the order that they were written in. :raise BadContent: the record is damaged."""
    path = path_of(root)
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return ()
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if (
        not isinstance(document, dict)
        or document.get("format") != _FORMAT
        or not isinstance(document.get("entries"), list)
    ):
        raise _damaged(path)
    return tuple(_entry(item, path) for item in document["entries"])


def _entry(item: object, path: str) -> Entry:
    if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
        raise _damaged(path)
    try:
        entry = Entry(**item)
    except TypeError:
        raise _damaged(path) from None
    if entry.kind not in KINDS or not entry.path.startswith("/"):
        raise _damaged(path)
    return entry


def write(root: str, entries: tuple[Entry, ...]) -> None:
    """Replace the record; without entries there is none."""
    path = path_of(root)
    if not entries:
        if os.path.lexists(path):
            os.unlink(path)
        return
    os.makedirs(root, mode=0o700, exist_ok=True)
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, "entries": [entry._asdict() for entry in entries]}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _damaged(path: str) -> BadContent:
    return BadContent(
        f"{path}, the record of what was installed, is damaged",
        "move it away; what was written then has to be taken back by hand",
    )
