"""The user that an image's configuration names, as numbers: by the image's own /etc/passwd and /etc/group, where they are names.

The forms are those of the OCI image specification (config.md, User): ``user``, ``uid``, ``user:group``, ``uid:gid``, ``uid:group``, ``user:gid``. The files are an
image's, so hostile: a line that is wrong is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unikeel.errors import BadContent
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.values import NamedTuple

_LARGEST: Final = (1 << 32) - 2


class User(NamedTuple):
    """Who a program runs as."""

    uid: int = 0
    gid: int = 0


def resolve(text: str, read: Callable[[str], bytes | None]) -> User:
    """The numbers of a user.

    :param text: as in the configuration; empty: root. :param read: a file of the image, or None if there is none; called only where it is needed.
    :raises BadContent: a name is not in the image's files, or a number is out of range.
    """
    user, colon, group = text.partition(":")
    if not user:
        return User()
    uid, gid = _number(user), 0
    if uid is None or not colon:
        entry = next(
            (
                line
                for line in _lines(read("/etc/passwd"), 4)
                if line[0] == user or (uid is not None and line[2] == str(uid))
            ),
            None,
        )
        if entry is None and uid is None:
            raise BadContent(f"the image's user {quote(user)} is not in its /etc/passwd")
        if entry is not None:
            uid, gid = int(entry[2]), int(entry[3])
    if colon:
        found = _number(group)
        gid = _group(group, read) if found is None else found
    assert uid is not None
    return User(uid, gid)


def _group(name: str, read: Callable[[str], bytes | None]) -> int:
    entry = next((line for line in _lines(read("/etc/group"), 3) if line[0] == name), None)
    if entry is None:
        raise BadContent(f"the image's group {quote(name)} is not in its /etc/group")
    return int(entry[2])


def _lines(data: bytes | None, numbers_to: int) -> Iterator[list[str]]:
    """The fields of each line whose third up to ``numbers_to`` ones are numbers."""
    for line in (data or b"").decode(errors="surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) >= numbers_to and all(_is_number(field) for field in fields[2:numbers_to]):
            yield fields


def _number(text: str) -> int | None:
    """:raises BadContent: it is one, and too large."""
    if not text.isascii() or not text.isdigit():
        return None
    if not _is_number(text):
        raise BadContent(f"the image's user {quote(text)} is out of range")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST
