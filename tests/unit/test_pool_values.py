"""Pools as values: definitions, plans, fill, and what a check says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import BadContent, InvalidArgument, ResourceExhausted
from unikeel.snapshots.pools.checking import Does, Evidence, Recorded, examine
from unikeel.snapshots.pools.definition import Pool, PoolKind, PoolState, check_name, decode, encode, new_uuid
from unikeel.snapshots.pools.planning import (
    MOST_METADATA,
    Device,
    Request,
    metadata_for,
    plan_creation,
    plan_growth,
    pool_table,
)
from unikeel.snapshots.pools.watching import Fill, FillWatch, Level, PoolFill, judge

MIB = 1 << 20
GIB = 1 << 30
UUID = "89d120363b88400780d2368fe75a6fc9"
THIN = Pool("main", UUID, PoolKind.THIN, PoolState.READY, 1, "/dev/a", "/dev/b", block_size=1 << 16)
ON_FILES = Pool("trial", UUID, PoolKind.THIN, PoolState.READY, 1, "", "", GIB, 8 * MIB, 1 << 16)
FILE = Pool("fast", UUID, PoolKind.FILE, PoolState.READY, 1, size=GIB)
DATA = Device("/dev/a", (8, 1), 10 * GIB)
METADATA = Device("/dev/b", (8, 2), 64 * MIB)


# --- definitions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [THIN, ON_FILES, FILE])
def test_a_definition_is_read_back(pool: Pool) -> None:
    assert decode(encode(pool), "it") == pool


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"name": "../x"},
        {"uuid": "89d12036-3b88-4007-80d2-368fe75a6fc9"},
        {"uuid": 7},
        {"kind": "zfs"},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"sparse": 1},
        {"data": "relative"},
        {"extra": 1},
    ],
)
def test_a_wrong_definition_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadContent, match=r"x\.json is not the definition of a pool"):
        decode(json.dumps({**json.loads(encode(THIN)), **change}).encode(), "x.json")


@settings(deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
)
def test_whatever_a_definition_holds_is_no_surprise(data: bytes) -> None:
    with pytest.raises(BadContent):
        decode(data, "it")


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a/b", "a" * 33, "ä", "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


# --- plans ------------------------------------------------------------------------------------------------------------------


def test_a_pool_on_devices() -> None:
    creation = plan_creation(Request("main", PoolKind.THIN, DATA, METADATA), UUID, 1)
    assert creation.pool == THIN._replace(state=PoolState.CREATING)
    assert creation.warnings == ()
    assert not creation.pool.on_files


def test_little_metadata_is_warned_of() -> None:
    small = METADATA._replace(size=4 * MIB)
    assert (
        "is small for the metadata" in plan_creation(Request("main", PoolKind.THIN, DATA, small), UUID, 1).warnings[0]
    )


def test_a_pool_in_files_is_for_trials() -> None:
    creation = plan_creation(Request("trial", PoolKind.THIN, size=GIB, sparse=True), UUID, 1)
    assert (creation.pool.size, creation.pool.metadata_size, creation.pool.sparse) == (GIB, 8 * MIB, True)
    assert ["is for trials" in creation.warnings[0], "sparse" in creation.warnings[1]] == [True, True]
    assert plan_creation(Request("fast", PoolKind.FILE, size=GIB), UUID, 1).warnings == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("M", PoolKind.THIN, size=GIB), "cannot be called"),
        (Request("m", PoolKind.THIN), "is given no size"),
        (Request("m", PoolKind.THIN, size=MIB), "cannot have 1048576 bytes"),
        (Request("m", PoolKind.FILE, size=299 * MIB), "at least 300MiB"),
        (Request("m", PoolKind.FILE, DATA, size=GIB), "neither devices"),
        (Request("m", PoolKind.FILE, size=GIB, block_size=1 << 16), "neither devices"),
        (Request("m", PoolKind.THIN, DATA), "needs two block devices"),
        (Request("m", PoolKind.THIN, None, METADATA), "needs two block devices"),
        (Request("m", PoolKind.THIN, DATA, METADATA, size=GIB), "devices are used whole"),
        (Request("m", PoolKind.THIN, DATA, METADATA._replace(identity=DATA.identity)), "the same device"),
        (Request("m", PoolKind.THIN, DATA._replace(size=MIB), METADATA), "less than the 64MiB"),
        (Request("m", PoolKind.THIN, DATA, METADATA._replace(size=MIB)), "less than the 4MiB"),
        (Request("m", PoolKind.THIN, DATA._replace(content="ext4"), METADATA), "holds ext4, which would be lost"),
        (Request("m", PoolKind.THIN, size=GIB, block_size=3 << 15), "cannot have 98304 bytes"),
        (Request("m", PoolKind.THIN, size=GIB, metadata_size=MIB), "cannot have 1048576 bytes"),
    ],
)
def test_what_cannot_be_is_refused(request_: Request, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        plan_creation(request_, UUID, 1)
    assert message in str(refused.value)


def test_force_overwrites() -> None:
    used = DATA._replace(content="ext4")
    assert plan_creation(Request("m", PoolKind.THIN, used, METADATA, force=True), UUID, 1).pool.data == "/dev/a"


@settings(deadline=None)
@given(st.integers(64 * MIB, 1 << 50), st.sampled_from([1 << 16, 1 << 20, 1 << 30]))
def test_metadata_has_bounds_and_grows_with_the_data(size: int, block: int) -> None:
    wanted = metadata_for(size, block)
    assert 4 * MIB <= wanted <= MOST_METADATA
    assert metadata_for(2 * size, block) >= wanted
    assert wanted == MOST_METADATA or wanted >= 48 * (size // block)


def test_the_table_of_a_pool() -> None:
    (target,) = pool_table("7:1", "7:0", GIB + 1000, 1 << 16, pass_discards=False)
    assert (target.start, target.length, target.kind) == (0, GIB, "thin-pool")
    assert target.parameters == "7:1 7:0 128 3276 2 error_if_no_space no_discard_passdown"
    assert pool_table("7:1", "7:0", GIB, 1 << 16, pass_discards=True)[0].parameters.endswith(" 1 error_if_no_space")


def test_growth() -> None:
    assert plan_growth(THIN, 0, 0).pool == THIN
    assert plan_growth(FILE, 2 * GIB, 0).pool.size == 2 * GIB
    grown = plan_growth(ON_FILES, 100 * GIB, 0)
    assert (grown.pool.size, grown.pool.metadata_size) == (100 * GIB, 200 * MIB)
    assert "which that much data needs" in grown.changes[1]
    assert plan_growth(ON_FILES, 0, 16 * MIB).pool.metadata_size == 16 * MIB


@pytest.mark.parametrize(
    ("pool", "size", "metadata"),
    [(THIN, GIB, 0), (FILE, 0, 0), (FILE, 0, MIB), (FILE, MIB, 0), (ON_FILES, 0, MIB), (ON_FILES, 1 << 60, 0)],
)
def test_growth_that_cannot_be(pool: Pool, size: int, metadata: int) -> None:
    with pytest.raises(InvalidArgument):
        plan_growth(pool, size, metadata)


# --- fill -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "metadata", "trouble", "level"),
    [
        (10, 10, "", Level.FINE),
        (80, 10, "", Level.WARN),
        (10, 70, "", Level.WARN),
        (95, 10, "", Level.FULL),
        (10, 85, "", Level.FULL),
        (80, 85, "", Level.FULL),
        (10, 10, "read-only", Level.FULL),
    ],
)
def test_the_gravest_counts(data: int, metadata: int, trouble: str, level: Level) -> None:
    verdict = judge(PoolFill(Fill(data, 100), Fill(metadata, 100), trouble))
    assert verdict.level is level
    assert bool(verdict.reason) == (level is not Level.FINE)


def test_nothing_is_full() -> None:
    assert judge(PoolFill(Fill(0, 0))).level is Level.FULL


def test_a_watch_warns_when_things_get_worse_and_refuses_in_time() -> None:
    said: list[str] = []
    used = [10]
    watch = FillWatch("main", lambda: PoolFill(Fill(used[0], 100)), notice=said.append)
    for value in (10, 81, 82, 50, 83):
        used[0] = value
        watch.admit()
    assert len(said) == 2
    assert said[0] == "pool main: 81.0 % of its data is used (nothing new from 95 % on)"
    used[0] = 96
    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="takes nothing new: 96.0 % of its data"):
            watch.admit()
    assert len(said) == 3


# --- checks -----------------------------------------------------------------------------------------------------------------

GOOD = Evidence(
    pool_mark=UUID,
    record_mark=UUID,
    content={1: MIB, 2: MIB},
    records={
        1: Recorded("base", ready=True, content=True),
        2: Recorded("key", ready=True, content=True, parent_id=1),
    },
)


def test_a_pool_and_records_that_agree() -> None:
    report = examine(THIN, GOOD)
    assert (report.fine, report.pending, report.steps) == (True, (), ())


def test_what_a_store_clears_up_by_itself_is_not_wrong() -> None:
    half = Recorded("half", ready=False, content=True, dead=True)
    seen = GOOD._replace(
        content={1: 1, 2: 1, 3: 1, 5: 1, 6: 1, 9: 1}, records={**GOOD.records, 3: half}, trash=frozenset({9})
    )
    report = examine(THIN, seen)
    assert report.fine
    assert [text.split(" (")[0] for text in report.pending] == [
        "undo 1 snapshot that dead processes left half made",
        "give back the room of 1 removed snapshot",
        "delete 2 snapshots that no record names",
    ]
    assert report.steps == ()


def test_what_a_store_makes_again_is_not_wrong() -> None:
    again = Recorded("again", ready=True, content=True, parent_id=1, again=True)
    report = examine(THIN, GOOD._replace(records={**GOOD.records, 3: again}))
    assert report.fine
    assert report.pending == ("make 1 snapshot again that the end of the host took unused (again)",)
    report = examine(THIN, GOOD._replace(content={}, records={**GOOD.records, 3: again}))
    assert not report.fine
    assert [(step.does, step.ids) for step in report.steps] == [(Does.FORGET, (3, 2, 1))]


def test_lost_content_is_forgotten_unless_something_intact_is_made_on_it() -> None:
    view = Recorded("view", ready=True, content=False, parent_id=2)
    report = examine(THIN, GOOD._replace(content={1: 1}, records={**GOOD.records, 3: view}))
    assert not report.fine
    assert [(step.does, step.ids) for step in report.steps] == [(Does.FORGET, (3, 2))]
    report = examine(THIN, GOOD._replace(content={2: 1}))
    assert not report.fine
    assert report.steps == ()


def test_a_pool_that_the_records_do_not_know_is_only_changed_by_a_repair() -> None:
    report = examine(THIN, GOOD._replace(record_mark="", records={}))
    assert not report.fine
    assert report.pending == ()
    assert [(step.does, step.ids) for step in report.steps] == [(Does.DELETE, (1, 2)), (Does.TIE, ())]
    assert "ids 1-2; 2 MiB" in report.steps[0].text


def test_records_of_another_pool() -> None:
    report = examine(THIN, GOOD._replace(record_mark=new_uuid()))
    assert [(step.does, step.ids) for step in report.steps] == [
        (Does.FORGET, (2, 1)),
        (Does.DELETE, (1, 2)),
        (Does.TIE, ()),
    ]


def test_a_new_pool_is_fine() -> None:
    assert examine(THIN, Evidence(pool_mark=UUID)).fine


def test_a_damaged_record_store_leaves_everything_as_it_is() -> None:
    report = examine(THIN, Evidence(pool_mark=UUID, content={1: 1, 2: 1}, unreadable_records="state.db is damaged"))
    assert report.problems[0] == "state.db is damaged"
    assert "holds 2 snapshots (ids 1-2)" in report.problems[1]
    assert report.steps == ()


def test_metadata_that_the_kernel_wants_checked() -> None:
    assert [step.does for step in examine(THIN, Evidence(needs_check=True)).steps] == [Does.CHECK_METADATA]
    assert examine(THIN, Evidence(unreadable_pool="it is gone")).steps == ()


@settings(deadline=None)
@given(
    st.sets(st.integers(1, 8)),
    st.dictionaries(
        st.integers(1, 8),
        st.builds(
            Recorded, st.text(max_size=3), st.booleans(), st.booleans(), st.booleans(), st.none() | st.integers(1, 8)
        ),
    ),
    st.frozensets(st.integers(9, 12)),
    st.sampled_from(["", UUID, "other"]),
)
def test_nothing_intact_is_ever_deleted(
    content: set[int], records: dict[int, Recorded], trash: frozenset[int], mark: str
) -> None:
    """Whatever was seen: content with a record goes only if the records belong to another pool, and then everything goes, by a repair."""
    seen = Evidence(UUID, mark, dict.fromkeys(content | trash, 1), records, trash)
    report = examine(THIN, seen)
    deleted = {number for step in report.steps if step.does is Does.DELETE for number in step.ids}
    forgotten = {number for step in report.steps if step.does is Does.FORGET for number in step.ids}
    if mark == UUID:
        assert deleted == set()
        assert not {number for number in forgotten if records[number].content and number in content}
        children = {record.parent_id for number, record in records.items() if number not in forgotten}
        assert not children & forgotten
    elif report.steps:
        assert deleted == content | trash
