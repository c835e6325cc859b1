"""What is printed: tables, JSON, sizes, ages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from unikeel.errors import UnikeelError
from unikeel.lean import Final

_UNITS: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_AGES: Final = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def write(text: str) -> None:
    """Text on standard output, if there is one."""
    if sys.stdout is not None:
        sys.stdout.write(text)


def line(text: str) -> None:
    """One line; what does not print is shown as ``?``, so that no name can reach the terminal's controls."""
    write(clean(text) + "\n")


def clean(text: str) -> str:
    """Without characters that do not print."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def json(value: object) -> None:
    """A value as JSON, indented, keys in the order that they were made in."""
    import json as encoder

    write(encoder.dumps(value, indent=2) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Columns as wide as their widest cell, two spaces apart. :param right: the columns set flush right."""
    cells = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    lines = []
    for row in cells:
        parts = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines) + "\n"


def size(number: int) -> str:
    """Bytes for people: three digits, powers of 1000."""
    for unit, factor in _UNITS:
        if number >= factor:
            value = number / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{number} B"


def age(then_ns: int, now_ns: int) -> str:
    """How long ago something was: one figure and its unit; ``-`` for never. A time in the future counts as now."""
    if then_ns <= 0:
        return "-"
    seconds = max(0, (now_ns - then_ns) // 10**9)
    for factor, unit in _AGES:
        if seconds >= factor:
            return f"{seconds // factor} {unit}"
    return "0 s"


def short(digest: str) -> str:
    """A digest's first twelve digits."""
    return digest.removeprefix("sha256:")[:12]


def for_each(names: Sequence[str], action: Callable[[str], None]) -> int:
    """Do the same with several things: a failure is told and does not keep the others from their turn.

    :return: the exit code of the first failure, else 0.
    """
    from unikeel.cli.failures import report

    code = 0
    for name in dict.fromkeys(names):
        try:
            action(name)
        except UnikeelError as error:
            failed = report(error, debug=False)
            code = code or failed
    return code
