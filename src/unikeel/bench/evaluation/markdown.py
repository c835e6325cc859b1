"""The report as Markdown. Pure. Whatever comes out of a results file is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from unikeel.bench.evaluation.report import COLUMNS, Report
from unikeel.values import NamedTuple

PAID: Final = ("MB of boot files", "strategy", "against", "cheaper in all from container", "95 %", "by the cost model")
_SPECIAL: Final = re.compile(r"([\\|<>&#])")


class Image(NamedTuple):
    """A picture beside the text: its section, file and words."""

    question: str
    file: str
    title: str
    caption: str


def rendered(report: Report, images: Sequence[Image] = ()) -> str:
    """The text, ending with a line break."""
    return "\n".join(_lines(report, images)) + "\n"


def _lines(report: Report, images: Sequence[Image]) -> Iterator[str]:
    yield from (f"# {_safe(report.title)}", "", _safe(report.about), "", "## In short", "")
    yield from (f"- {_safe(sentence)}" for sentence in report.summary)
    for section in report.sections:
        yield from ("", f"## {_safe(section.question)}", "", f"`{section.name}`: {_safe(section.does)}.", "")
        yield from (f"- {_safe(sentence)}" for sentence in section.sentences)
        for image in images:
            if image.question == section.name:
                yield from (
                    "",
                    f"![{_safe(image.title)}]({image.file})",
                    "",
                    f"*{_safe(image.title)}.* {_safe(image.caption)}",
                )
        yield ""
        yield from table(COLUMNS, section.rows)
    if report.paid:
        yield from ("", "## After how many containers has it paid?", "")
        yield from table(PAID, report.paid)
    yield from _listed("Failures", report.failures)
    yield from _listed("Notices", report.notices)
    yield from ("", "## Where it was measured", "")
    yield from table(("what", "value"), report.environment)


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("", f"## {title}", "")
        yield from (f"- {_safe(line)}" for line in lines)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table's lines."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_safe, row))} |"


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
