"""Whether a pool and the records agree, and what would make them agree again: decided from what was seen, as values.

What holds: content that no record names is garbage only if the pool and an intact record store name each other; then a store clears it up by itself. In any
other case nothing is changed but by ``pool check --repair``, after its plan was shown.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from unikeel.lean import Final
from unikeel.snapshots.pools.definition import Pool
from unikeel.values import NamedTuple

_NAMED: Final = 8


class Recorded(NamedTuple):
    """What a record says of an id.

    :ivar content: it has some of its own. :ivar dead: it is half made, by a process that is gone. :ivar again: its content was not flushed before the host's end, and can
        be made again from its parent's.
    """

    name: str
    ready: bool
    content: bool
    dead: bool = False
    parent_id: int | None = None
    again: bool = False


class Evidence(NamedTuple):
    """What was seen.

    :ivar pool_mark: what the pool says that it is, empty: nothing. :ivar record_mark: what the records say that they belong to, empty: nothing.
    :ivar content: bytes that each id in the pool refers to. :ivar records: all records of the store by their ids. :ivar trash: ids that are to go.
    :ivar unreadable_records: why the record store cannot be read, or empty. :ivar unreadable_pool: likewise.
    :ivar needs_check: the metadata is damaged, or the kernel wants it checked. :ivar trouble: why the pool takes no writes, or empty.
    """

    pool_mark: str = ""
    record_mark: str = ""
    content: Mapping[int, int] = {}
    records: Mapping[int, Recorded] = {}
    trash: frozenset[int] = frozenset()
    unreadable_records: str = ""
    unreadable_pool: str = ""
    needs_check: bool = False
    trouble: str = ""


class Does(enum.Enum):
    """What a step of a repair does."""

    CHECK_METADATA = "check-metadata"  #: run thin_check, and thin_repair if that finds something
    DELETE = "delete"  #: delete content by its ids
    FORGET = "forget"  #: forget records by their ids
    TIE = "tie"  #: have the records name this pool


class Step(NamedTuple):
    """One step of a repair; ``ids`` are those that it is about."""

    does: Does
    text: str
    ids: tuple[int, ...] = ()


class Report(NamedTuple):
    """What is wrong (sentences without full stops), what a store will clear up by itself, and what a repair would do, in order."""

    problems: tuple[str, ...]
    pending: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def examine(pool: Pool, seen: Evidence) -> Report:
    """Judge a pool."""
    if seen.unreadable_pool:
        return Report((seen.unreadable_pool,), (), ())
    if seen.needs_check:
        step = Step(
            Does.CHECK_METADATA, "check the pool's metadata with thin_check, and repair it if that finds damage"
        )
        return Report(
            ("the pool's metadata is damaged, or may be: the kernel does not write it until it is checked",),
            (),
            (step,),
        )
    report = _of_records(pool, seen)
    if not seen.trouble:
        return report
    return report._replace(problems=(f"the pool is {seen.trouble}: grow it", *report.problems))


def _of_records(pool: Pool, seen: Evidence) -> Report:
    if seen.unreadable_records:
        return Report((seen.unreadable_records, _what_is_left(seen)), (), ())
    if seen.pool_mark and seen.pool_mark == seen.record_mark:
        return _of_trusted(seen)
    return _of_strangers(pool, seen)


def _what_is_left(seen: Evidence) -> str:
    """With the record store lost: what the pool alone still tells."""
    return (
        f"the pool itself is intact and holds {_count(len(seen.content), 'snapshot')} ({_ids(seen.content)}), whose names, parents and labels are only in the record store: "
        "put back a copy of it; without one, move it away, and a repair gives their room back, after which images have to be loaded again"
    )


def _of_trusted(seen: Evidence) -> Report:
    """The pool and the records belong together."""
    pending: list[str] = []
    dead = [record.name for record in seen.records.values() if record.dead]
    if dead:
        pending.append(f"undo {_count(len(dead), 'snapshot')} that dead processes left half made ({_some(dead)})")
    if seen.trash:
        pending.append(f"give back the room of {_count(len(seen.trash), 'removed snapshot')}")
    strangers = sorted(seen.content.keys() - seen.records.keys() - seen.trash)
    if strangers:
        pending.append(f"delete {_count(len(strangers), 'snapshot')} that no record names ({_ids(strangers)})")
    again = [seen.records[number].name for number in sorted(_made_again(seen))]
    if again:
        pending.append(
            f"make {_count(len(again), 'snapshot')} again that the end of the host took unused ({_some(again)})"
        )
    lost = _lost(seen)
    if not lost:
        return Report((), tuple(pending), ())
    names = _some([seen.records[number].name for number in lost])
    problem = f"the content of {_count(len(lost), 'recorded snapshot')} is missing or rests on what is ({names})"
    gone = _forgettable(seen, lost)
    text = f"forget {_count(len(gone), 'snapshot')} without content: {_some([seen.records[number].name for number in gone])}"
    return Report((problem,), tuple(pending), (Step(Does.FORGET, text, gone),) if gone else ())


def _forgettable(seen: Evidence, lost: tuple[int, ...]) -> tuple[int, ...]:
    """Those that nothing intact is made on, which would no longer know its parent. Children have larger ids than their parents."""
    gone: list[int] = []
    children: dict[int, set[int]] = {}
    for number, record in seen.records.items():
        if record.parent_id is not None:
            children.setdefault(record.parent_id, set()).add(number)
    for number in lost:
        if children.get(number, set()) <= set(gone):
            gone.append(number)
    return tuple(gone)


def _made_again(seen: Evidence) -> set[int]:
    """Snapshots without content that have their parent's again as soon as a store is opened."""
    return {
        number
        for number, record in seen.records.items()
        if record.ready and record.again and number not in seen.content and record.parent_id in seen.content
    }


def _lost(seen: Evidence) -> tuple[int, ...]:
    """Records whose content is missing, and views of those; the newest first, so that children go before their parents."""
    lacking = {
        number
        for number, record in seen.records.items()
        if record.ready and record.content and number not in seen.content
    } - _made_again(seen)
    for number, record in sorted(seen.records.items()):
        if not record.content and record.parent_id in lacking:
            lacking.add(number)
    return tuple(sorted(lacking, reverse=True))


def _of_strangers(pool: Pool, seen: Evidence) -> Report:
    """The pool and the records do not name each other."""
    if not seen.record_mark and not seen.content and not seen.records:
        return Report((), (), ())  # a new pool: the first store that opens it ties the two
    if not seen.record_mark:
        problem = f"the records do not know the content of this pool: {_count(len(seen.content), 'snapshot')} ({_ids(seen.content)}) whose names, parents and labels are lost"
    else:
        said = seen.pool_mark or "nothing"
        problem = f"the records belong to another pool ({seen.record_mark}) than this one, which says that it is {said}"
    steps = []
    if seen.records:
        names = _some([record.name for record in seen.records.values()])
        ids = tuple(sorted(seen.records, reverse=True))
        steps.append(
            Step(Does.FORGET, f"forget {_count(len(ids), 'snapshot')} recorded for another pool: {names}", ids)
        )
    if seen.content:
        ids, room = tuple(sorted(seen.content)), sum(seen.content.values())
        steps.append(
            Step(
                Does.DELETE,
                f"delete {_count(len(ids), 'snapshot')} from the pool for good ({_ids(ids)}; {room >> 20} MiB)",
                ids,
            )
        )
    steps.append(Step(Does.TIE, f"have the records belong to pool {pool.name} ({seen.pool_mark or 'a new mark'})"))
    return Report((problem,), (), tuple(steps))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _ids(numbers: Iterable[int]) -> str:
    """Numbers as ranges, the first few."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "ids " + _some([str(a) if a == b else f"{a}-{b}" for a, b in ranges]) if ranges else "none"
