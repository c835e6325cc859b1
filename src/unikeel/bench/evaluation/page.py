"""The report as one HTML file that needs nothing else: no network, no scripts; light and dark as the reader's system is; it prints. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from unikeel.bench.evaluation.figures import Picture
from unikeel.bench.evaluation.markdown import PAID
from unikeel.bench.evaluation.report import COLUMNS, Report, Section

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #6a7178; --rule: #d8dce0; --paper: #ffffff; --shade: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --faint: #9aa2aa; --rule: #3a4149; --paper: #15181b; --shade: #1e2327; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
p.does, figcaption, footer { color: var(--faint); font-size: .9rem; }
ul { padding-left: 1.2rem; } li { margin: .2rem 0; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: inherit; }
figure { margin: 1.4rem 0; break-inside: avoid; } figure svg { width: 100%; height: auto; max-width: 54rem; display: block; }
figcaption b { color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { text-align: left; padding: .28rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.figure { text-align: right; white-space: nowrap; } th { background: var(--shade); white-space: nowrap; }
code { background: var(--shade); padding: 0 .25em; border-radius: .2em; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } .scroll { overflow: visible; }
  table { font-size: 7pt; } tr { break-inside: avoid; } details > summary { display: none; } }
"""
#: Nothing is loaded and nothing runs, whatever a results file says.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: Columns of figures, which stand flush right.
_FIGURES: Final = frozenset(("n", "least", "p50", "p90", "p95", "p99", "most"))


def rendered(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """The file."""
    return "\n".join(_lines(report, pictures)) + "\n"


def _lines(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<header><h1>{escape(report.title)}</h1><p>{escape(report.about)}</p></header><nav>"
    yield from (f'<a href="#{section.name}">{section.name}</a>' for section in report.sections)
    yield '</nav><main><section id="summary"><h2>In short</h2>'
    yield from _list(report.summary)
    yield "</section>"
    for section in report.sections:
        yield from _section(section, [picture for picture in pictures if picture.question == section.name])
    if report.paid:
        yield '<section id="paid"><h2>After how many containers has it paid?</h2>'
        yield from _table(PAID, report.paid)
        yield "</section>"
    for title, lines in (("Failures", report.failures), ("Notices", report.notices)):
        if lines:
            yield f'<section id="{title.lower()}"><h2>{title}</h2>'
            yield from _list(lines)
            yield "</section>"
    yield '<section id="where"><h2>Where it was measured</h2>'
    yield from _table(("what", "value"), report.environment)
    yield f"</section></main><footer>{_METHOD}</footer></body></html>"


_METHOD: Final = (
    "Percentiles are of all attempts, a failure counting as slower than every sample; in brackets, where the true value is with 95 % certainty, by order statistics. "
    "A percentile is left out where there are too few attempts for such an interval. Strategies were measured in turn, after warm-ups that are in no figure. "
    "Starts of one burst depend on each other, so their intervals are too narrow; only whole bursts are compared."
)


def _section(section: Section, pictures: Sequence[Picture]) -> Iterator[str]:
    yield f'<section id="{escape(section.name)}"><h2>{escape(section.question)}</h2>'
    yield f'<p class="does"><code>{escape(section.name)}</code>: {escape(section.does)}.</p>'
    yield from _list(section.sentences)
    for picture in pictures:
        label = escape(f"{picture.title}. {picture.caption}")
        yield f'<figure id="{escape(picture.name)}" role="img" aria-label="{label}">{picture.svg}'
        yield f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption></figure>"
    yield from _table(COLUMNS, section.rows)
    yield "</section>"


def _list(lines: Sequence[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{_words(line)}</li>" for line in lines)
    yield "</ul>"


def _words(text: str) -> str:
    """Escaped, with what stands in backquotes as code."""
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    kinds = [' class="figure"' if head in _FIGURES else "" for head in heads]
    yield '<div class="scroll"><table><thead><tr>'
    yield from (f"<th>{escape(head)}</th>" for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"
