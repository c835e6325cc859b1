"""Pictures, by matplotlib, which the extra ``bench`` installs: as SVG that takes its ink from the page (light or dark), and as PNG.

Every line has a colour, a dash and a marker of its own, so that a print without colours can be read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from unikeel.bench.campaign.results import Results, Series
from unikeel.bench.evaluation import breakeven, wording
from unikeel.bench.evaluation.sorting import headline, question_of, size_of
from unikeel.bench.inference import interval, quantile
from unikeel.bench.rows import Key
from unikeel.errors import Unavailable
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: The ink of the SVG, which is replaced by the page's.
_INK: Final = "#010203"
_STYLES: Final[Mapping[str, tuple[str, str, str]]] = {
    "cache": ("#1f9d8a", "-", "o"),
    "shared-view": ("#e07b1a", "--", "s"),
    "view": ("#7d62d8", "-.", "^"),
    "copy": ("#d3455b", ":", "D"),
}
_OTHERS: Final = (("#4c8edb", "-", "v"), ("#8a8f98", "--", "P"), ("#b5892b", "-.", "X"), ("#5aa44c", ":", "*"))
#: Questions whose distributions are shown.
_SPREAD: Final = ("sequential", "burst", "boot-size", "churn", "first")
#: Containers of an image that a break-even plot shows.
_MOST: Final = 40


class Picture(NamedTuple):
    """One figure. ``question`` is the section that it stands in."""

    name: str
    question: str
    title: str
    caption: str
    svg: str
    png: bytes


def drawn(results: Results) -> list[Picture]:
    """All figures that the results allow. :raise Unavailable: matplotlib is not there."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Drawing
    except ImportError:
        raise Unavailable(
            "the report's pictures need matplotlib, which is not installed",
            "pip install 'unikeel[bench]', or use --text",
        ) from None
    found: list[Picture] = []
    plans = (*_distributions(results), *_timelines(results), *_scalings(results), *_breakevens(results))
    for name, question, title, caption, draw in plans:
        settings: dict[Any, Any] = {
            "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
            "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
        }  # fmt: skip
        with mpl.rc_context(settings):
            drawing = Drawing(figsize=(7.2, 3.4), layout="constrained")
            draw(drawing)
            found.append(Picture(name, question, title, caption, _svg(drawing), _png(drawing)))
    return found


def _svg(drawing: Drawing) -> str:
    target = io.StringIO()
    drawing.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _png(drawing: Drawing) -> bytes:
    target = io.BytesIO()
    drawing.savefig(target, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return target.getvalue()


Plan = tuple[str, str, str, str, Callable[["Drawing"], None]]


def _style(name: str, place: int) -> tuple[str, str, str]:
    return _STYLES.get(name, _OTHERS[place % len(_OTHERS)])


def _finished(axes: Axes) -> None:
    axes.grid(alpha=0.25, color="#808080")
    axes.legend(frameon=False, fontsize=8)


# -- distributions ---------------------------------------------------------------------------------------------------


def _distributions(results: Results) -> Iterator[Plan]:
    """The share of attempts that had succeeded after so long; what failed never does, so such a line ends below 1."""
    groups: dict[Key, list[Series]] = {}
    for series in results.series.values():
        key = series.key
        if (
            headline(key)
            and key.strategy
            and key.unit == "ms"
            and len(series.values) >= 5
            and question_of(key) in _SPREAD
        ):
            groups.setdefault(key._replace(strategy=None), []).append(series)
    for number, (key, those) in enumerate(groups.items()):
        if len(those) < 2:
            continue
        title = f"{wording.series(key)}: how many were done after so long"
        caption = f"Each point is one attempt: {wording.what(key.metric, question_of(key))}. A line that ends below 1 had failures."
        yield f"distribution-{number}", question_of(key), title, caption, _ecdf(those)


def _ecdf(those: Sequence[Series]) -> Callable[[Drawing], None]:
    def draw(drawing: Drawing) -> None:
        axes = drawing.subplots()
        for place, series in enumerate(those):
            colour, dash, marker = _style(series.key.strategy or "", place)
            values, count = sorted(series.values), series.sampled.attempts
            shares = [(index + 1) / count for index in range(len(values))]
            axes.step(values, shares, where="post", color=colour, linestyle=dash, label=series.key.strategy)
            axes.plot(values, shares, marker, color=colour, markersize=3)
        if min(min(each.values) for each in those) > 0 and max(max(e.values) for e in those) > 20 * min(
            min(e.values) for e in those
        ):
            axes.set_xscale("log")
        axes.set_xlabel(those[0].key.unit)
        axes.set_ylabel("share of attempts")
        axes.set_ylim(0, 1.03)
        _finished(axes)

    return draw


# -- timelines -------------------------------------------------------------------------------------------------------


def _timelines(results: Results) -> Iterator[Plan]:
    """The median length of each step, one after the other, strategies below each other."""
    groups: dict[Key, list[Series]] = {}
    for series in results.series.values():
        if series.spans and question_of(series.key) == "sequential":
            groups.setdefault(series.key._replace(strategy=None), []).append(series)
    for number, (key, those) in enumerate(groups.items()):
        title = f"One start of {key.image}, step by step"
        caption = "Medians of each step's length; steps that take less than a hundredth are gathered under `other`."
        yield f"timeline-{number}", "sequential", title, caption, _stacked(those)


def steps(series: Series) -> dict[str, float]:
    """Step → its median length in ms, in the order in which they come; what lies between steps is ``between steps``."""
    lengths: dict[str, list[float]] = {}
    for spans in series.spans:
        sums: dict[str, float] = {}
        for name, begin, end in spans:
            sums[name] = sums.get(name, 0.0) + end - begin
        sums["between steps"] = max(0.0, max(end for _, _, end in spans) - sum(sums.values()))
        for name, length in sums.items():
            lengths.setdefault(name, []).append(length)
    return {name: sorted(found)[len(found) // 2] for name, found in lengths.items()}


def _stacked(those: Sequence[Series]) -> Callable[[Drawing], None]:
    def draw(drawing: Drawing) -> None:
        from matplotlib import colormaps

        axes = drawing.subplots()
        found = {series.key.strategy or "": steps(series) for series in those}
        longest = max(sum(each.values()) for each in found.values())
        names = dict.fromkeys(n for each in found.values() for n, length in each.items() if length >= longest / 100)
        shades = colormaps["tab20"].colors  # type: ignore[attr-defined]  # a listed map has them
        left = dict.fromkeys(found, 0.0)
        for place, name in enumerate([*names, "other"]):
            lengths = [
                sum(length for step, length in each.items() if step not in names)
                if name == "other"
                else each.get(name, 0.0)
                for each in found.values()
            ]
            axes.barh(list(found), lengths, left=list(left.values()), color=shades[place % 20], label=name, height=0.6)
            left = {key: before + more for (key, before), more in zip(left.items(), lengths, strict=True)}
        axes.invert_yaxis()
        axes.set_xlabel("ms since the command")
        axes.legend(frameon=False, fontsize=7, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return draw


# -- scaling ---------------------------------------------------------------------------------------------------------

_LEVELS: Final[Mapping[str, tuple[str, Callable[[Key], int | None]]]] = {
    "boot-size": ("MB of boot files", size_of),
    "first": ("MB of boot files", size_of),
    "image-size": ("MB of the image", size_of),
    "siblings": ("idle siblings", lambda key: key.siblings),
    "burst": ("starts at once", lambda key: key.concurrency),
}


def _scalings(results: Results) -> Iterator[Plan]:
    for question, (axis, level) in _LEVELS.items():
        groups: dict[tuple[str, str, str], dict[str, list[tuple[int, Series]]]] = {}
        for series in results.series.values():
            at = level(series.key)
            if headline(series.key) and question_of(series.key) == question and at is not None and series.values:
                lines = groups.setdefault((series.key.metric, series.key.unit, series.key.snapshotter or ""), {})
                lines.setdefault(series.key.strategy or "-", []).append((at, series))
        for (metric, unit, snapshotter), lines in groups.items():
            if max(len(those) for those in lines.values()) < 2:
                continue
            title = f"{wording.capital(wording.what(metric, question))}, by {axis}"
            caption = "Medians, with their 95 % intervals."
            yield f"scaling-{question}-{metric}-{snapshotter}", question, title, caption, _scaling(lines, axis, unit)


def _scaling(lines: Mapping[str, Sequence[tuple[int, Series]]], axis: str, unit: str) -> Callable[[Drawing], None]:
    def draw(drawing: Drawing) -> None:
        axes = drawing.subplots()
        highest, lowest = 0.0, math.inf
        for place, (name, those) in enumerate(lines.items()):
            colour, dash, marker = _style(name, place)
            points = []
            for at, series in sorted(those, key=lambda pair: pair[0]):
                middle, span = quantile(series.sampled, 0.5), interval(series.sampled, 0.5)
                if middle is not None and math.isfinite(middle):
                    low, high = (span.low, min(span.high, max(series.values))) if span else (middle, middle)
                    points.append((at, middle, max(0.0, middle - low), max(0.0, high - middle)))
            if not points:
                continue
            levels, middles, below, above = zip(*points, strict=True)
            axes.errorbar(
                levels,
                middles,
                (below, above),
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=4,
                capsize=3,
                label=name,
            )
            highest, lowest = max(highest, *middles), min(lowest, *middles)
        if lowest > 0 and highest > 30 * lowest:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(axis)
        axes.set_ylabel(unit)
        _finished(axes)

    return draw


# -- break-even ------------------------------------------------------------------------------------------------------


def _breakevens(results: Results) -> Iterator[Plan]:
    found = breakeven.costs(results)
    fitted = breakeven.models(found)
    for size, those in found.items():
        if len(those) >= 2:
            title = f"What N containers of an image pay for {size} MB of boot files"
            caption = "Lines: as measured (medians of the first and of later containers). Crosses: by the cost model, which is linear in the size."
            yield f"break-even-{size}", "boot-size", title, caption, _paying(those, fitted, size)


def _paying(
    those: Mapping[str, breakeven.Cost], fitted: Mapping[str, breakeven.Model], size: int
) -> Callable[[Drawing], None]:
    def draw(drawing: Drawing) -> None:
        axes = drawing.subplots()
        counts = list(range(1, _MOST + 1))
        for place, (name, cost) in enumerate(those.items()):
            if not math.isfinite(cost.first + cost.later):
                continue
            colour, dash, _ = _style(name, place)
            axes.plot(counts, [cost.of(count) for count in counts], color=colour, linestyle=dash, label=name)
            if name in fitted:
                model = fitted[name].at(size)
                axes.plot(counts[::4], [model.of(count) for count in counts[::4]], "x", color=colour, markersize=4)
        axes.set_xlabel("containers of the image")
        axes.set_ylabel("ms in all")
        axes.set_ylim(bottom=0)
        _finished(axes)

    return draw
