"""``unikeel bench report``: results as a page, as Markdown, as pictures."""

from __future__ import annotations

import os

from unikeel.cli.options import DIRECTORIES, FILES, Argument, Command, Option, Parsed
from unikeel.cli.output import line
from unikeel.cli.output import write as write_out
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "bench report",
    "make a report of results: HTML, Markdown, pictures, rows",
    options=(
        Option(("--output",), "where it goes (build/bench/report)", "DIR", complete=DIRECTORIES),
        Option(("--text",), "print the Markdown without pictures, write nothing"),
    ),
    arguments=(Argument("RESULTS", "files of `unikeel bench run`; several add up", 1, None, FILES),),
    examples=(
        ("unikeel bench report build/bench/laptop.jsonl", "build/bench/report/report.html"),
        ("unikeel bench report --text build/bench/laptop.jsonl", "only the words and tables"),
    ),
    details="DIR gets report.html (one file, needs no network), report.md, a PNG and an SVG of each figure, and rows.json in the format of docs/benchmarks.md. "
    "Pictures need the extra: pip install 'unikeel[bench]'.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Make it."""
    from unikeel.bench.campaign.results import read
    from unikeel.bench.evaluation.writing import text, write

    del session
    results = read(parsed.operands)
    if parsed.flag("text"):
        write_out(text(results))
        return 0
    directory = parsed.text("output") or os.path.join("build", "bench", "report")
    write(results, directory)
    line(f"written to {os.path.join(directory, 'report.html')}")
    return 0
