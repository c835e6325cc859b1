"""The report as values: what is said in words, the table of each question, what was compared. Pure; how it looks is for others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from unikeel.bench.campaign.journal import Kind
from unikeel.bench.campaign.results import Results, Series
from unikeel.bench.campaign.scenarios import SCENARIOS
from unikeel.bench.evaluation import breakeven, wording
from unikeel.bench.evaluation.comparing import Pair, pairs
from unikeel.bench.evaluation.sorting import by_question, headline, question_of
from unikeel.bench.inference import interval, quantile
from unikeel.bench.rows import Json
from unikeel.values import NamedTuple

#: Percentiles of the tables; each is given only where its interval exists: p90 from 29 attempts on, p95 from 60, p99 from some 300.
SHARES: Final = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"))
COLUMNS: Final = (
    "what",
    "image",
    "strategy",
    "where",
    "n",
    "failed",
    "unit",
    "least",
    *(name for _, name in SHARES),
    "most",
)


class Section(NamedTuple):
    """What is known about one question. ``sentences``: what was compared, differences first; ``rows``: cells by :data:`COLUMNS`, of the headline first."""

    name: str
    question: str
    does: str
    sentences: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Report(NamedTuple):
    """All of it."""

    title: str
    about: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    paid: tuple[tuple[str, ...], ...]
    failures: tuple[str, ...]
    notices: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def made(results: Results) -> Report:
    """The report of some results."""
    compared = pairs(results)
    sections = tuple(_section(name, those, compared) for name, those in by_question(results.series.values()).items())
    names = list(dict.fromkeys(str(campaign.get("name", "")) for campaign in results.campaigns))
    return Report(
        f"unikeel: {', '.join(names)}",
        " ".join(dict.fromkeys(str(campaign.get("about", "")) for campaign in results.campaigns)),
        tuple(_summary(results, compared)),
        sections,
        tuple(_paid(results)),
        tuple(_failures(results)),
        tuple(dict.fromkeys(results.notices)),
        tuple(_environment(results)),
    )


# -- in words ------------------------------------------------------------------------------------------------------


def _summary(results: Results, compared: Sequence[Pair]) -> Iterator[str]:
    """The few sentences that stand first."""
    taken = [each for each in results.series.values() if headline(each.key)]
    attempts, failed = sum(each.sampled.attempts for each in taken), sum(each.sampled.failures for each in taken)
    yield (
        f"{sum(bool(each.sampled.attempts) for each in results.series.values())} series were measured; in those that the questions are about, {failed} of {attempts} attempts failed"
        f"{_by_kind(taken)}. A failure counts as slower than every sample."
    )
    significant = sum(pair.difference.significant for pair in compared)
    yield (
        f"{len(compared)} pairs were compared, and {significant} differ significantly (Mann-Whitney, corrected by Holm's method for all of them, "
        f"level {wording.LEVEL_WORDS}); of the others nothing may be said but that."
    )
    for name in ("sequential", "boot-size", "first"):
        yield from _best([each for each in taken if question_of(each.key) == name], compared)
    for point in breakeven.points(results):
        yield _paid_sentence(point)
    yield from _steady(compared, "siblings", "With siblings")
    yield from _steady(compared, "image-size", "With a larger image")
    yield from _private(results)


def _by_kind(taken: Sequence[Series]) -> str:
    sums = {kind: sum(each.failed.get(kind, 0) for each in taken) for kind in Kind}
    words = [f"{count} by {kind.value}" for kind, count in sums.items() if count]
    return f" ({', '.join(words)})" if words else ""


def _best(taken: Sequence[Series], compared: Sequence[Pair]) -> Iterator[str]:
    """The quickest by its median, and whether the others are significantly slower."""
    for group in dict.fromkeys(each.key._replace(strategy=None) for each in taken):
        those = [
            each for each in taken if each.key._replace(strategy=None) == group and each.key.strategy and each.values
        ]
        if len(those) < 2 or group.metric not in ("ready", "acquire", "task_create_start", "identify_acquire"):
            continue
        best = min(those, key=_median)
        slower: list[str] = []
        same: list[str] = []
        for other in those:
            if other is not best:
                found = next((p for p in compared if {p.first.key, p.second.key} == {best.key, other.key}), None)
                (slower if found and found.difference.significant else same).append(f"`{other.key.strategy}`")
        said = (
            f"significantly less than by {_and(slower)}"
            if slower
            else "which is not significantly less than by any other"
        )
        said += f", and not significantly different from {_and(same)}" if slower and same else ""
        figure = (
            f"{wording.number(_median(best))} {best.key.unit} {wording.interval(interval(best.sampled, 0.5))}".strip()
        )
        yield f"{wording.capital(wording.series(group))}: least by `{best.key.strategy}`, {figure} at the median, {said}."


def _median(series: Series) -> float:
    value = quantile(series.sampled, 0.5)
    return math.inf if value is None else value


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _steady(compared: Sequence[Pair], question: str, words: str) -> Iterator[str]:
    """Pairs of one strategy that differ in the number of siblings, or in the image."""
    for pair in compared:
        if question_of(pair.second.key) == question and pair.first.key.strategy == pair.second.key.strategy:
            yield f"{words}: {wording.difference(pair.first, pair.second, pair.difference)}"


def _private(results: Results) -> Iterator[str]:
    """What a guest and its monitor hold more with an image of more boot files: their own copies of those."""
    held: dict[tuple[str, str], float] = {}
    for key, series in results.series.items():
        if question_of(key) == "memory" and key.metric == "guest" and series.values:
            held[key.strategy or "", key.image or ""] = _median(series)
    for (strategy, image), size in held.items():
        least = min(other for (name, _), other in held.items() if name == strategy)
        if size > least:
            yield (
                f"Memory of {image} by `{strategy}`: a guest holds {wording.number(size - least)} MiB more than with the least of images, "
                "its own copies of its boot files: no sharing on the host can save those."
            )


def _paid_sentence(point: breakeven.Point) -> str:
    model = "" if point.model is None else f"; by the cost model {_count(point.model)}"
    return (
        f"{point.megabytes} MB of boot files: `{point.strategy}` is cheaper than `{point.other}` in all {_count(point.measured)} "
        f"(95 %: {_span(point.interval.low, point.interval.high)}){model}."
    )


def _count(value: float) -> str:
    if math.isinf(value):
        return "never"
    return "from the first container of an image on" if value <= 1 else f"from container {value:.0f} on"


def _span(low: float, high: float) -> str:
    def word(value: float) -> str:
        return "never" if math.isinf(value) else f"{value:.0f}"

    return word(low) if word(low) == word(high) else f"{word(low)} to {word(high)}"


# -- tables --------------------------------------------------------------------------------------------------------


def _section(name: str, series: Sequence[Series], compared: Sequence[Pair]) -> Section:
    mine = [pair for pair in compared if question_of(pair.second.key) == name]
    scenario = SCENARIOS.get(name)
    return Section(
        name or "other",
        scenario.question if scenario else "What else was measured?",
        scenario.does if scenario else "series of no question",
        tuple(_sentences(mine)),
        tuple(_row(each) for each in series if each.sampled.attempts),
    )


def _sentences(compared: Sequence[Pair]) -> Iterator[str]:
    """Each significant difference, then all that are none in one sentence for each series."""
    for pair in compared:
        if pair.difference.significant:
            yield wording.difference(pair.first, pair.second, pair.difference)
    same: dict[str, list[str]] = {}
    for pair in compared:
        if not pair.difference.significant:
            same.setdefault(wording.series(pair.second.key), []).append(
                wording.undecided(pair.first, pair.second, pair.difference)
            )
    for about, those in same.items():
        yield f"{about}: no significant difference between {'; '.join(those)}."


def _row(series: Series) -> tuple[str, ...]:
    key, sampled = series.key, series.sampled
    what = wording.what(key.metric, question_of(key))
    beside = f", {key.siblings} siblings" if key.siblings else ""
    beside += f", {key.scenario}" if key.scenario != question_of(key) else ""
    at_once = f", {key.concurrency} at once" if (key.concurrency or 1) > 1 else ""
    where = " ".join(part for part in (key.snapshotter, (key.runtime or "").removeprefix("io.containerd.")) if part)
    failed = ", ".join(f"{count} {kind.value}" for kind, count in series.failed.items()) or "0"
    figures = []
    for share, _ in SHARES:
        found, value = interval(sampled, share), quantile(sampled, share)
        figures.append("-" if found is None or value is None else f"{wording.number(value)} {wording.interval(found)}")
    if sampled.attempts and figures[0] == "-" and (value := quantile(sampled, 0.5)) is not None:
        figures[0] = wording.number(value)
    ends = [wording.number(end(series.values)) if series.values else "-" for end in (min, max)]
    return (
        f"{key.metric}: {what}{beside}{at_once}", key.image or "-", key.strategy or "-", where or "-", str(sampled.attempts), failed, key.unit or "-",
        ends[0], *figures, ends[1],
    )  # fmt: skip


def _paid(results: Results) -> Iterator[tuple[str, ...]]:
    """Megabytes, strategy, against, as measured, its interval, by the model."""
    for point in breakeven.points(results):
        model = "-" if point.model is None else _span(point.model, point.model)
        span = _span(point.interval.low, point.interval.high)
        yield (str(point.megabytes), point.strategy, point.other, _span(point.measured, point.measured), span, model)


def _failures(results: Results) -> Iterator[str]:
    """One line for each reason."""
    reasons: dict[str, list[Series]] = {}
    for series in results.series.values():
        if series.failed:
            reasons.setdefault(series.reason, []).append(series)
    for reason, those in reasons.items():
        names = sorted(
            {
                f"{wording.series(each.key)} by {each.key.strategy}" if each.key.strategy else wording.series(each.key)
                for each in those
            }
        )
        more = f" and {len(names) - 1} more series" if len(names) > 1 else ""
        yield f"{names[0]}{more}: {max(each.sampled.failures for each in those)} attempts, the first: {reason}"


def _environment(results: Results) -> Iterator[tuple[str, str]]:
    """What all runs say; where they differ, all that they say."""
    names = dict.fromkeys(name for found in results.environments for name in found)
    for name in names:
        said = dict.fromkeys(_text(found[name]) for found in results.environments if name in found)
        yield name.replace("_", " "), "; ".join(said)


def _text(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None)
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)
