"""Regular expressions that cannot be made slow: the part of RE2's syntax that filters use, matched in linear time.

The standard library's matcher goes back and tries again, so that a hostile pattern takes years; containerd's filters are
written for RE2, which never does. A pattern becomes a small program whose states are followed all at once (Thompson,
"Regular Expression Search Algorithm", 1968): the work is at most the text's length times the program's.

Offered: literals, ``.``, classes and ``\\d \\w \\s`` with their negations, ``^ $``, groups, ``|``, ``* + ?`` (lazy ones, too),
``{m,n}``. Source of the meaning: RE2's ``doc/syntax.txt``.
"""

from __future__ import annotations

from collections.abc import Callable

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.values import NamedTuple

MAX_PATTERN: Final = 1024
MAX_PROGRAM: Final = 512
MAX_REPEAT: Final = 256
_MAX_DEPTH: Final = 32

_Ranges = tuple[tuple[int, int], ...]

_DIGIT: Final[_Ranges] = ((48, 57),)
_WORD: Final[_Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Final[_Ranges] = ((9, 10), (12, 13), (32, 32))
_CLASSES: Final = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
_LAST: Final = 0x10FFFF


def _inverse(ranges: _Ranges) -> _Ranges:
    """All code points that are in none of the ranges."""
    result, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        result.append((start, _LAST))
    return tuple(result)


_DOT: Final = _inverse(((10, 10),))


class _Take(NamedTuple):
    """Take one character that is in one of the ranges, then go on with the next step."""

    ranges: _Ranges


class _Edge(NamedTuple):
    """Go on only at the start (``^``) or the end (``$``) of the text."""

    sign: str


class _Fork(NamedTuple):
    """Go on at both of two steps, given relative to this one."""

    first: int
    second: int


#: A program's steps run in order unless they fork; running off its end is a match.
_Step = _Take | _Edge | _Fork
_Program = list[_Step]


class _Parser:
    """Recursive descent over one pattern; every method returns the program of what it has read."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise InvalidArgument(f"a regular expression has at most {MAX_PATTERN} characters, not {len(pattern)}")
        self._text = pattern
        self._at = 0
        self._depth = 0

    def wrong(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"the regular expression {self._text!r} is not usable: {why} at character {self._at}")

    def parse(self) -> _Program:
        program = self._alternatives()
        if self._at < len(self._text):
            raise self.wrong("unmatched )")
        return program

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise self.wrong("it ends too early")
        self._at += 1
        return char

    def _bounded(self, program: _Program) -> _Program:
        if len(program) > MAX_PROGRAM:
            raise self.wrong("it is too large")
        return program

    def _alternatives(self) -> _Program:
        program = self._sequence()
        while self._peek() == "|":
            self._at += 1
            other = self._sequence()
            program = self._bounded(
                [_Fork(1, len(program) + 2), *program, _Fork(len(other) + 1, len(other) + 1), *other]
            )
        return program

    def _sequence(self) -> _Program:
        program: _Program = []
        while self._peek() not in ("", "|", ")"):
            program += self._repeated(self._atom())
            self._bounded(program)
        return program

    def _repeated(self, atom: _Program) -> _Program:
        count = 0
        while self._peek() and self._peek() in "*+?{":
            bounds = self._bounds()
            if bounds is None:
                break
            count += 1
            if count > 1:
                raise self.wrong("a repetition of a repetition")
            atom = self._repeat(atom, *bounds)
            if self._peek() == "?":
                self._at += 1
        return atom

    def _bounds(self) -> tuple[int, int | None] | None:
        """How often the atom before is repeated, as (least, most); None if a brace is only a brace."""
        char = self._peek()
        if char != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : end if end > 0 else self._at + 1].partition(",")
        if end < 0 or not _is_number(low) or (high and not _is_number(high)):
            return None
        self._at = end + 1
        least, most = int(low), (None if comma and not high else int(high or low))
        if least > MAX_REPEAT or (most is not None and not least <= most <= MAX_REPEAT):
            raise self.wrong(f"a repetition that is not rising or over {MAX_REPEAT}")
        return least, most

    def _repeat(self, atom: _Program, least: int, most: int | None) -> _Program:
        size = len(atom)
        times = max(least, most or 0, 1)
        if (size + 2) * times > 2 * MAX_PROGRAM:
            raise self.wrong("it is too large")
        program = atom * least
        if most is None:
            # again: fork to the atom and past it; the atom leads back.
            program += [_Fork(1, size + 2), *atom, _Fork(-size - 1, -size - 1)]
        else:
            left = most - least
            for index in range(left):
                program += [_Fork(1, (size + 1) * (left - index)), *atom]
        return self._bounded(program)

    def _atom(self) -> _Program:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return [_Take(self._class())]
        if char == ".":
            return [_Take(_DOT)]
        if char in "^$":
            return [_Edge(char)]
        if char == "\\":
            return [_Take(self._escape())]
        if char in "*+?":
            raise self.wrong("nothing to repeat")
        return [_Take(((ord(char), ord(char)),))]

    def _group(self) -> _Program:
        if self._peek() == "?":
            if self._text[self._at : self._at + 2] != "?:":
                raise self.wrong("flags and named groups are not offered")
            self._at += 2
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self.wrong("groups are nested too deeply")
        program = self._alternatives()
        if self._peek() != ")":
            raise self.wrong("a group is not closed")
        self._at += 1
        self._depth -= 1
        return program

    def _escape(self) -> _Ranges:
        char = self._take()
        if char.lower() in _CLASSES:
            ranges = _CLASSES[char.lower()]
            return ranges if char.islower() else _inverse(ranges)
        if char in _CONTROLS:
            return ((_CONTROLS[char], _CONTROLS[char]),)
        if char.isalnum():
            raise self.wrong(f"\\{char} is not offered")
        return ((ord(char), ord(char)),)

    def _class(self) -> _Ranges:
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._class_item()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._class_item()
                if len(low) > 1 or len(high) > 1 or low[0][0] != low[0][1] or low[0][0] > high[0][1]:
                    raise self.wrong("a range that is not rising")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges += low
        self._at += 1
        return _inverse(tuple(ranges)) if negated else tuple(ranges)

    def _class_item(self) -> _Ranges:
        if self._text.startswith("[:", self._at):
            raise self.wrong("named classes are not offered")
        char = self._take()
        return self._escape() if char == "\\" else ((ord(char), ord(char)),)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 5


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a pattern occurs anywhere in a text.

    :raise InvalidArgument: the pattern is malformed, too large or uses what is not offered.
    """
    program = _Parser(pattern).parse()
    return lambda text: _search(program, text)


def _search(program: _Program, text: str) -> bool:
    end = len(program)
    states: set[int] = set()
    for position in range(len(text) + 1):
        states.add(0)
        states = _closure(program, states, at_start=position == 0, at_end=position == len(text))
        if end in states:
            return True
        if position < len(text):
            code = ord(text[position])
            states = {state + 1 for state in states if _takes(program[state], code)}
    return False


def _closure(program: _Program, states: set[int], *, at_start: bool, at_end: bool) -> set[int]:
    """All steps reached from some without taking a character."""
    seen: set[int] = set()
    todo = list(states)
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        step = program[state] if state < len(program) else None
        if isinstance(step, _Fork):
            todo += (state + step.first, state + step.second)
        elif isinstance(step, _Edge) and (at_start if step.sign == "^" else at_end):
            todo.append(state + 1)
    return seen


def _takes(step: _Step, code: int) -> bool:
    return isinstance(step, _Take) and any(low <= code <= high for low, high in step.ranges)
