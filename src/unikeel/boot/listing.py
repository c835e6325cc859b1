"""What is kept of boot files, for whom, as ``unikeel boot ls`` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from unikeel.boot.contract import OWN, SHARED, Choice, Holding
from unikeel.boot.ledger import Ledger, ParentRow, names
from unikeel.boot.reached import ReachedRow, ReachedRows

_Users = Mapping[tuple[str, str], Sequence[str]]


def listing(ledger: Ledger, held: Sequence[str], copy_size: Callable[[str], int]) -> list[Holding]:
    """Cache objects, shared views, views, copies.

    :param held: keys of the parents of which the holder keeps a view. :param copy_size: bytes of a container's copy.
    """
    users: dict[tuple[str, str], list[str]] = {}
    for user in ledger.users():
        users.setdefault((user.strategy, user.key), []).append(user.container)
    parents, reached = ledger.parents(), ReachedRows(ledger.database).all()
    return [
        *_objects(ledger, parents, users),
        *_shared(parents, users, held, [row for row in reached if row.purpose == SHARED]),
        *_own(ledger, parents, {row.identity: row for row in reached if row.purpose == OWN}, copy_size),
    ]


def _objects(ledger: Ledger, parents: dict[str, ParentRow], users: _Users) -> Iterator[Holding]:
    origins = ledger.object_parents()
    for kept in ledger.kept():
        keys = origins.get(kept.digest, [])
        using = sorted({user for key in keys for user in users.get((Choice.CACHE.value, key), ())})
        origin = names(parents, keys)
        spaces = sorted({parents[key].namespace for key in keys if key in parents})
        makers = sorted({parents[key].snapshotter for key in keys if key in parents})
        yield Holding(
            "object",
            kept.digest,
            origin,
            tuple(using),
            kept.size,
            kept.last_used_ns,
            ",".join(spaces),
            ",".join(makers),
        )


def _shared(
    parents: dict[str, ParentRow], users: _Users, held: Sequence[str], reached: Sequence[ReachedRow]
) -> Iterator[Holding]:
    rows = {row.parent_key: row for row in reached}
    used = (key for strategy, key in users if strategy == Choice.SHARED_VIEW.value)
    for key in sorted({*held, *used, *rows}):
        using = tuple(users.get((Choice.SHARED_VIEW.value, key), ()))
        yield _holding(Choice.SHARED_VIEW, key, key, using, 0, parents.get(key), rows.get(key))


def _own(
    ledger: Ledger,
    parents: dict[str, ParentRow],
    reached: Mapping[tuple[str, str, str], ReachedRow],
    copy_size: Callable[[str], int],
) -> Iterator[Holding]:
    for view in ledger.views():
        row = reached.get((view.key, OWN, view.container))
        yield _holding(Choice.VIEW, view.view, view.key, (view.container,), 0, parents.get(view.key), row)
    for copy in ledger.copies():
        size = copy_size(copy.container)
        yield _holding(Choice.COPY, copy.container, copy.key, (copy.container,), size, parents.get(copy.key), None)


def _holding(
    kind: Choice,
    name: str,
    key: str,
    users: tuple[str, ...],
    size: int,
    parent: ParentRow | None,
    reached: ReachedRow | None,
) -> Holding:
    if parent is None and reached is not None:
        parent = ParentRow(reached.parent, 0, reached.consumer, reached.namespace, reached.snapshotter)
    if parent is None:
        return Holding(kind.value, name, (key,), users, size, 0)
    lease = reached.lease if reached is not None else ""
    return Holding(
        kind.value, name, (parent.name,), users, size, parent.last_used_ns, parent.namespace, parent.snapshotter, lease
    )
