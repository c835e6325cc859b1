"""JSON of strangers, read with types and limits.

A :class:`Document` is one JSON object together with the words that name it in an error. Each accessor either returns a
value of the type asked for or raises :class:`BadContent`. Keys that occur twice are refused: two readers of such a text could
see two different images.
"""

from __future__ import annotations

from collections.abc import Iterable

from unikeel.errors import BadContent
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: Largest manifest, index or configuration that is read, in bytes (what containerd and registries allow, too).
MAX_BYTES: Final = 4 << 20
#: Most entries of one list or object.
MAX_ENTRIES: Final = 20_000


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name[:100]!r} occurs twice")
        found[name] = value
    return found


def _parse(data: bytes, where: str) -> object:
    import json

    if len(data) > MAX_BYTES:
        raise BadContent(f"{where} has more than {MAX_BYTES} bytes")
    try:
        value: object = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadContent(f"{where} is not valid JSON: {error}") from error
    return value


def _checked_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadContent(f"{what} is not a text")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise BadContent(f"{what} is not valid Unicode") from error
    if b"\0" in encoded:
        raise BadContent(f"{what} holds a NUL character")
    return value


def _items(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadContent(f"{what} is not a list")
    return _bounded(value, what)


def _bounded(value: list[object], what: str) -> list[object]:
    if len(value) > MAX_ENTRIES:
        raise BadContent(f"{what} has more than {MAX_ENTRIES} entries")
    return value


class Document(NamedTuple):
    """One JSON object and how errors name it."""

    fields: dict[str, object]
    where: str

    @staticmethod
    def parse(data: bytes, where: str) -> Document:
        """Read an object. :raise BadContent: too large, not JSON, not an object, a key twice."""
        return Document.of(_parse(data, where), where)

    @staticmethod
    def parse_list(data: bytes, where: str) -> list[Document]:
        """Read a list of objects. :raise BadContent: likewise."""
        return [Document.of(item, f"{where} [{n}]") for n, item in enumerate(_items(_parse(data, where), where))]

    @staticmethod
    def of(value: object, where: str) -> Document:
        """An object that was read already. :raise BadContent: it is something else."""
        if not isinstance(value, dict):
            raise BadContent(f"{where} is not a JSON object")
        return Document(value, where)

    def _what(self, key: str) -> str:
        return f"{self.where}: {key!r}"

    def text(self, key: str, default: str | None = "") -> str:
        """A text; absent or null gives the default. :raise BadContent: no text, or absent where there is no default."""
        value = self.fields.get(key)
        if value is None:
            if default is None:
                raise BadContent(f"{self._what(key)} is missing")
            return default
        return _checked_text(value, self._what(key))

    def size(self, key: str) -> int:
        """A number of bytes, 0 ≤ n < 2⁶³. :raise BadContent: anything else."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise BadContent(f"{self._what(key)} is not a size")
        return value

    def child(self, key: str) -> Document:
        """The object under a key; absent or null gives an empty one. :raise BadContent: something else."""
        value = self.fields.get(key)
        return Document({} if value is None else Document.of(value, self._what(key)).fields, self._what(key))

    def children(self, key: str) -> list[Document]:
        """A list of objects; absent or null gives none. :raise BadContent: something else."""
        what = self._what(key)
        return [Document.of(item, f"{what} [{n}]") for n, item in enumerate(_items(self.fields.get(key), what))]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; absent or null gives none. :raise BadContent: something else."""
        what = self._what(key)
        return tuple(_checked_text(item, what) for item in _items(self.fields.get(key), what))

    def mapping(self, key: str) -> dict[str, str]:
        """An object of texts; absent or null gives an empty one. :raise BadContent: something else."""
        what, found = self._what(key), self.child(key).fields
        _bounded(list(found), what)
        return {_checked_text(name, what): _checked_text(value, f"{what} {name!r}") for name, value in found.items()}

    def has(self, keys: Iterable[str]) -> bool:
        """Whether any of the keys is there."""
        return any(key in self.fields for key in keys)
