"""Which differences may be called one: all that a report looks at are tested, and corrected together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final

from unikeel.bench.campaign.results import Results, Series
from unikeel.bench.containerd.plan import RUNC
from unikeel.bench.evaluation import wording
from unikeel.bench.evaluation.sorting import headline, level_of, question_of, size_of
from unikeel.bench.inference import Difference, Sampled, compare, judged, ratio_interval
from unikeel.bench.rows import Key
from unikeel.bench.snapshotter.plan import COMPARED
from unikeel.values import NamedTuple

#: With fewer attempts than this nothing is compared.
LEAST: Final = 5
#: Questions whose single starts are taken together, and so are not independent: only what a whole burst took is compared.
_TOGETHER: Final = ("burst", "churn")
#: Questions whose levels do not take turns within a block.
_APART: Final = ("siblings", "base-size")
#: Questions to a snapshotter by itself.
_ALONE: Final = ("prepare", "view")
#: Questions whose scenarios' names end with the way in which the same thing was done.
_TWO_WAYS: Final = ("layers", "durability")
_SINGLE: Final = ("ready", "task_create")


class Pair(NamedTuple):
    """Two series that differ in one thing, and what the test says; the ratio is second over first."""

    first: Series
    second: Series
    difference: Difference

    @property
    def name(self) -> tuple[Key, Key]:
        """Which two."""
        return self.first.key, self.second.key


def pairs(results: Results) -> list[Pair]:
    """The same as :func:`tested`, with the intervals of those that differ significantly."""
    return [_with_interval(pair) if pair.difference.significant else pair for pair in tested(results)]


def _with_interval(pair: Pair) -> Pair:
    known = pair.difference.ratio is not None
    span = ratio_interval(*_what_is_compared(pair.first, pair.second)) if known else None
    return pair._replace(difference=pair.difference._replace(interval=span))


def tested(results: Results) -> list[Pair]:
    """All that are looked at, their p corrected for all: strategies with each other; with many siblings against with none; large images, bases and numbers of
    layers against small ones; runtimes with the floor; snapshotters of one containerd with each other."""
    found = [
        pair
        for pair in _candidates(results.series.values())
        if min(each.attempts for each in _what_is_compared(*pair)) >= LEAST
    ]
    differences = judged([compare(*_what_is_compared(*pair)) for pair in found])
    return [Pair(first, second, each) for (first, second), each in zip(found, differences, strict=True)]


def _what_is_compared(first: Series, second: Series) -> tuple[Sampled, Sampled]:
    """All attempts of both. Where the two were taken in stretches of their own, as with siblings that are started once for a block, one figure of each stretch: the attempts of one
    depend on each other by what the host did meanwhile.
    """
    apart = any(question_of(each.key) in _APART for each in (first, second)) and (
        first.key.siblings != second.key.siblings or first.key.scenario != second.key.scenario
    )
    return (first.by_block, second.by_block) if apart else (first.sampled, second.sampled)


def _candidates(series: Iterable[Series]) -> Iterator[tuple[Series, Series]]:
    wanted = [each for each in series if headline(each.key) and not _dependent(each.key)]
    for group in _grouped(wanted, lambda key: key._replace(strategy=None)):
        yield from combinations(group, 2)
    yield from _with_the_least(
        wanted, "siblings", lambda key: key._replace(siblings=None), lambda key: key.siblings or 0
    )
    yield from _with_the_least(
        wanted, "image-size", lambda key: key._replace(image=None), lambda key: size_of(key) or 0
    )
    yield from _with_the_least(wanted, "base-size", lambda key: key._replace(scenario=""), level_of)
    layered = [each for each in wanted if question_of(each.key) == "layers"]
    for question in _TWO_WAYS:
        both_ways = [each for each in wanted if question_of(each.key) == question]
        for group in _grouped(both_ways, lambda key: key._replace(scenario="")):
            yield from combinations(group, 2)
    for group in _grouped(layered, lambda key: key._replace(image=None)):
        yield from ((group[0], other) for other in group[1:])
    yield from _runtimes(wanted)
    yield from _snapshotters(wanted)


def _with_the_least(
    series: Sequence[Series], question: str, by: Callable[[Key], Key], level: Callable[[Key], int]
) -> Iterator[tuple[Series, Series]]:
    """Those of a question that differ in its level alone: the least with each of the others."""
    for group in _grouped([each for each in series if question_of(each.key) == question], by):
        ordered = sorted(group, key=lambda each: level(each.key))
        yield from ((ordered[0], other) for other in ordered[1:])


def _runtimes(series: Sequence[Series]) -> Iterator[tuple[Series, Series]]:
    """containerd's own runtime, which runs the same program every time, with every other runtime."""
    tasks = [
        each for each in series if each.key.metric == "task_create_start" and question_of(each.key) == "sequential"
    ]
    for group in _grouped(tasks, lambda key: key._replace(strategy=None, runtime=None, image=None)):
        floors = [each for each in group if each.key.runtime == RUNC]
        yield from ((floor, other) for floor in floors for other in group if other.key.runtime != RUNC)


def _snapshotters(series: Sequence[Series]) -> Iterator[tuple[Series, Series]]:
    """Snapshotters that took turns in one containerd. What was measured in different worlds, one of them emulated, is not compared."""
    alone = [each for each in series if question_of(each.key) in _ALONE and each.key.runtime is None]
    for group in _grouped(alone, lambda key: key._replace(snapshotter=None)):
        for first, second in combinations(group, 2):
            if any({first.key.snapshotter, second.key.snapshotter} <= set(world.contenders) for world in COMPARED):
                yield first, second


def _dependent(key: Key) -> bool:
    return question_of(key) in _TOGETHER and key.metric in _SINGLE


def _grouped(series: Iterable[Series], by: Callable[[Key], Key]) -> Iterable[list[Series]]:
    groups: dict[Key, list[Series]] = {}
    for each in series:
        groups.setdefault(by(each.key), []).append(each)
    return groups.values()


def changes(before: Results, after: Results) -> list[str]:
    """The series that differ significantly between two results, a sentence each."""
    both = [(before.series[key], after.series[key]) for key in before.series if key in after.series]
    both = [(one, other) for one, other in both if min(one.sampled.attempts, other.sampled.attempts) >= LEAST]
    found = judged([compare(one.sampled, other.sampled) for one, other in both])
    named = [
        _with_interval(Pair(one, other, each))
        for (one, other), each in zip(both, found, strict=True)
        if each.significant
    ]
    return [wording.change(pair.first, pair.difference) for pair in named]


class Agreement(NamedTuple):
    """What a second run says of the differences that are significant in the first, a sentence each."""

    confirmed: list[str]
    contradicted: list[str]
    unknown: list[str]


def agreement(first: Results, second: Results) -> Agreement:
    """Whether every significant difference of the first has the same sign in the second, significant there or not."""
    found = Agreement([], [], [])
    for pair in pairs(first):
        if not pair.difference.significant:
            continue
        one, other = (second.series.get(key) for key in pair.name)
        again = compare(*_what_is_compared(one, other)) if one and other else None
        if again is None or not again.direction:
            found.unknown.append(wording.difference(pair.first, pair.second, pair.difference))
        elif again.direction == pair.difference.direction:
            found.confirmed.append(wording.difference(pair.first, pair.second, pair.difference))
        else:
            found.contradicted.append(wording.difference(pair.first, pair.second, pair.difference))
    return found
