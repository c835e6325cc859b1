"""Small JSON files that only save work: unreadable means empty, and a failure to write means that the work is done again."""

from __future__ import annotations

import os
from collections.abc import Mapping

from unikeel.lean import Final

_LIMIT: Final = 64 << 10


def read_memory(directory: str, name: str) -> dict[str, object]:
    """The object in a file; empty if it is missing, damaged or over 64 KiB."""
    import json

    try:
        with open(os.path.join(directory, name), "rb") as file:
            found: object = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def write_memory(directory: str, name: str, content: Mapping[str, object]) -> None:
    """Replace a file whole (mode 0600), so that a reader sees the old or the new content. The directory is made if it is missing."""
    import contextlib
    import json

    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.rename(temporary, os.path.join(directory, name))
