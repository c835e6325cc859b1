"""The report's files."""

from __future__ import annotations

import os

from unikeel.bench.campaign.results import Results
from unikeel.bench.evaluation import figures, markdown, page, report


def text(results: Results) -> str:
    """The Markdown without pictures; needs nothing that is not installed."""
    return markdown.rendered(report.made(results))


def write(results: Results, directory: str) -> None:
    """Write report.html, report.md, the pictures and rows.json. :raise Unavailable: matplotlib is not there. :raise OSError: it cannot be written."""
    pictures = figures.drawn(results)
    made = report.made(results)
    os.makedirs(directory, exist_ok=True)
    images = []
    for picture in pictures:
        _write(os.path.join(directory, f"{picture.name}.png"), picture.png)
        # Beside the page it has no ink to take over.
        _write(os.path.join(directory, f"{picture.name}.svg"), picture.svg.replace("currentColor", "#333333").encode())
        images.append(markdown.Image(picture.question, f"{picture.name}.png", picture.title, picture.caption))
    _write(os.path.join(directory, "report.md"), markdown.rendered(made, images).encode())
    _write(os.path.join(directory, "report.html"), page.rendered(made, pictures).encode())
    results.document().write(os.path.join(directory, "rows.json"))


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
