"""containerd's filter language, as its List calls take it.

A filter is a comma-separated list of selectors that must all hold; of several filters one must match; an empty one matches all::

    selector  = fieldpath [ operator value ]        without operator: the field is present
    fieldpath = field *( "." field )                field = quoted / 1*( letter / digit / "_" )
    operator  = "==" / "!=" / "~="                  ~= : a regular expression occurs in the value
    value     = quoted / anything but space and comma

``quoted`` is a Go string in double quotes; the value of ``~=`` may also stand between ``/`` or ``|``. Fields of a snapshot:
``name``, ``parent``, ``kind``, ``labels.KEY``. Source: containerd's ``pkg/filters`` and ``core/snapshots/storage``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.snapshots.contract import Info
from unikeel.values import NamedTuple

_MAX_FILTERS: Final = 1024
_MAX_LENGTH: Final = 16384

_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}

Matcher = Callable[[Info], bool]


class _Selector(NamedTuple):
    path: tuple[str, ...]
    operator: str
    test: Callable[[str], bool]

    def matches(self, info: Info) -> bool:
        value = _field(info, self.path)
        if self.operator in ("", "=="):
            return value is not None and self.test(value)
        return self.test(value or "")


def _field(info: Info, path: tuple[str, ...]) -> str | None:
    """A field's value; None if the snapshot does not have it. An empty name or parent counts as absent."""
    if path == ("name",):
        return info.name or None
    if path == ("parent",):
        return info.parent or None
    if path == ("kind",):
        return info.kind.value
    if path[0] == "labels" and len(path) > 1:
        return info.labels.get(".".join(path[1:]))
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise InvalidArgument(f"a filter has at most {_MAX_LENGTH} characters, not {len(text)}")
        self._text = text
        self._at = 0

    def wrong(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"the filter {self._text!r} is malformed at character {self._at}: {why}")

    def selectors(self) -> list[_Selector]:
        found = [self._selector()]
        while self._accept(","):
            found.append(self._selector())
        if self._peek():
            raise self.wrong("expected a comma")
        return found

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _accept(self, token: str) -> bool:
        self._peek()
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _selector(self) -> _Selector:
        path = [self._fieldname()]
        while self._accept("."):
            path.append(self._fieldname())
        for operator in ("==", "!=", "~="):
            if self._accept(operator):
                return _Selector(tuple(path), operator, _test(operator, self._value(alternative=operator == "~=")))
        return _Selector(tuple(path), "", lambda _value: True)

    def _fieldname(self) -> str:
        if self._peek() == '"':
            return self._quoted()
        start = self._at
        while self._at < len(self._text) and (self._text[self._at].isalnum() or self._text[self._at] == "_"):
            self._at += 1
        if self._at == start:
            raise self.wrong("expected a field")
        return self._text[start : self._at]

    def _value(self, *, alternative: bool) -> str:
        first = self._peek()
        if first == '"':
            return self._quoted()
        if alternative and first and first in "/|":
            return self._between(first)
        start = self._at
        while self._at < len(self._text) and self._text[self._at] != "," and not self._text[self._at].isspace():
            self._at += 1
        if self._at == start:
            raise self.wrong("expected a value")
        return self._text[start : self._at]

    def _between(self, mark: str) -> str:
        """A value between two marks; a backslash before the mark stands for it, before anything else for itself."""
        self._at += 1
        out: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == mark:
                return "".join(out)
            if char == "\\" and self._text.startswith(mark, self._at):
                char = mark
                self._at += 1
            elif char == "\\":
                char += self._text[self._at : self._at + 1]
                self._at += 1
            out.append(char)
        raise self.wrong(f"a value is not closed by {mark}")

    def _quoted(self) -> str:
        self._at += 1
        out: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == '"':
                return "".join(out)
            out.append(self._escape() if char == "\\" else char)
        raise self.wrong("a quoted string is not closed")

    def _escape(self) -> str:
        char = self._text[self._at : self._at + 1]
        if char in _HEX_DIGITS:
            return self._code(1, _HEX_DIGITS[char], 16)
        if char and char in "01234567":
            return self._code(0, 3, 8)
        if char not in _ESCAPES:
            raise self.wrong("an unknown escape")
        self._at += 1
        return _ESCAPES[char]

    def _code(self, skip: int, digits: int, base: int) -> str:
        text = self._text[self._at + skip : self._at + skip + digits]
        if len(text) < digits or not text.isalnum() or not text.isascii():
            raise self.wrong("an escape is too short")
        try:
            char = chr(int(text, base))
            char.encode()
        except (ValueError, OverflowError) as error:
            raise self.wrong("an escape is no character") from error
        self._at += skip + digits
        return char


def _test(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "==":
        return lambda found: found == value
    if operator == "!=":
        return lambda found: found != value
    from unikeel.snapshots.patterns import compile_pattern

    return compile_pattern(value)


def parse_filter(text: str) -> Matcher:
    """One filter as a function. :raise InvalidArgument: it is malformed or too long."""
    if not text:
        return lambda _info: True
    selectors = _Scanner(text).selectors()
    return lambda info: all(selector.matches(info) for selector in selectors)


def parse_filters(texts: Iterable[str]) -> Matcher:
    """A function that is true of what any of the filters matches; without filters, of everything.

    :raise InvalidArgument: one is malformed or too long, or there are over 1024.
    """
    matchers = [parse_filter(text) for _, text in zip(range(_MAX_FILTERS + 1), texts, strict=False)]
    if len(matchers) > _MAX_FILTERS:
        raise InvalidArgument(f"at most {_MAX_FILTERS} filters are taken")
    if not matchers:
        return lambda _info: True
    return lambda info: any(matcher(info) for matcher in matchers)
