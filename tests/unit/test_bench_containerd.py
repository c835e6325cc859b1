"""The benchmark under containerd: what is planned, how long it takes, what comes out of a lab as lines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from unikeel.bench import lines
from unikeel.bench.containerd.inside.session import Request
from unikeel.bench.containerd.main import arguments
from unikeel.bench.containerd.plan import GROUPS, METRICS, STRATEGIES, WORLDS, Block, Plan
from unikeel.bench.progress import Estimate, Progress, duration
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Board, Key
from unikeel.errors import BadContent, InvalidArgument

_NATIVE, _SID, _VM = WORLDS
_KEY = Key("warm", "acquire", "ms", "hello", "cache", "blockfile", None, 1, 0)


def _rounds(plan: Plan, world: int = 0) -> dict[str, int]:
    found: dict[str, int] = {}
    for block in plan.blocks(WORLDS[world]):
        found[block.group] = found.get(block.group, 0) + block.rounds
    return found


def test_every_metric_has_groups_that_exist() -> None:
    assert {name for groups in METRICS.values() for name in groups} == {group.name for group in GROUPS}


def test_a_whole_run_has_thirty_samples_and_enough_siblings() -> None:
    plan = Plan()
    assert plan.worlds() == list(WORLDS)
    for world in WORLDS:
        sizes = {
            group.name: sum(block.rounds * block.per_round for block in plan.blocks(world) if block.group == group.name)
            for group in GROUPS
        }
        assert min(sizes["first"], sizes["warm"], sizes["tasks"], sizes["siblings"]) >= 30
        assert sizes["crowd"] >= 1
    assert _rounds(plan)["siblings"] * GROUPS[3].per_round[0] >= 100
    assert {block.siblings for block in plan.blocks(_NATIVE) if block.group == "siblings"} == {30}
    assert {block.siblings for block in plan.blocks(_VM) if block.group == "siblings"} == {5}
    assert {"memory", "killed"}.isdisjoint(_rounds(plan, 2))


def test_a_quick_run_is_small_and_complete() -> None:
    plan = Plan(quick=True)
    assert plan.worlds() == [_NATIVE]
    assert set(_rounds(plan)) == {group.name for group in GROUPS}
    assert max(_rounds(plan).values()) <= 3
    assert sum(block.guess for block in plan.blocks(_NATIVE)) < 240
    assert {image for block in plan.blocks(_NATIVE) for image in block.images} == {"hello", "bulky"}


def test_blocks_go_on_where_the_one_before_ended() -> None:
    blocks = [block for block in Plan(samples=7).blocks(_NATIVE) if block.group == "tasks"]
    assert [(block.first, block.rounds) for block in blocks] == [(0, 5), (5, 2)]
    assert all(block.timeout >= 120 for block in blocks)


def test_samples_are_counted_by_what_a_round_gives() -> None:
    assert _rounds(Plan(samples=40)) == {
        "first": 40,
        "warm": 40,
        "tasks": 40,
        "siblings": 2,
        "crowd": 3,
        "memory": 3,
        "killed": 10,
    }
    assert _rounds(Plan(samples=1, quick=True))["siblings"] == 1


def test_without_a_disk_another_guest_stands_for_nginx() -> None:
    assert Plan().images("tasks", _NATIVE) == ("hello", "nginx")
    assert Plan().images("tasks", _SID) == ("hello", "initrd")


def test_only_what_is_asked_for() -> None:
    assert set(_rounds(Plan(metrics=("daemon_pss",)))) == {"memory"}
    assert Plan(where="vm").worlds() == [_VM]
    assert Plan(where="native").worlds() == [_NATIVE, _SID]
    assert Plan(snapshotter="erofs").worlds() == [_SID]


def test_options() -> None:
    assert arguments(["--only", "acquire", "--where", "vm", "--samples", "3"]).samples == 3
    for wrong in (
        ["--samples", "-1"],
        ["--quick", "--where", "vm"],
        ["--where", "vm", "--snapshotter", "erofs"],
        ["--only", "exec"],
    ):
        with pytest.raises(SystemExit):
            arguments(wrong)


def test_the_estimate_learns() -> None:
    blocks = [Block(_NATIVE, "tasks", number, 1, 0, 1, (), 10.0) for number in range(4)]
    blocks.append(Block(_VM, "tasks", 0, 2, 0, 1, (), 100.0))
    estimate = Estimate(blocks)
    assert estimate.left() == 140
    estimate.done(blocks[0], 20.0)
    assert estimate.left() == 3 * 20 + 200
    estimate.done(blocks[4], 100.0)
    assert estimate.left() == 3 * 20


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (59.0, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_in_a_pipe_tells_each_group_once() -> None:
    said: list[str] = []
    blocks = [Block(_NATIVE, group, number, 1, 0, 1, (), 30.0) for group in ("warm", "tasks") for number in range(2)]
    progress = Progress(blocks, shown=False, write=said.append, clock=lambda: 0.0)
    progress.step("starting")
    for block in blocks:
        progress.begin(block)
        progress.end(block)
    progress.clear()
    assert said == [
        "bench: blockfile: warm; block 1 of 4, about 2 min left\n",
        "bench: blockfile: tasks; block 3 of 4, about 0 s left\n",
    ]
    assert progress.where() == "4 of 4 blocks"


def test_progress_on_a_terminal_is_one_line() -> None:
    said: list[str] = []
    block = Block(_NATIVE, "warm", 25, 1, 0, 1, (), 30.0)
    progress = Progress([block], shown=True, write=said.append)
    progress.step("starting the lab")
    progress.begin(block)
    progress.clear()
    assert [text.removeprefix("\r\033[K") for text in said] == [
        "starting the lab …",
        "blockfile: warm from round 26; block 1 of 1, about 30 s left",
        "",
    ]


def test_lines_there_and_back() -> None:
    board = Board()
    text = [
        lines.sample(_KEY, 1.5),
        lines.failure(_KEY, "no"),
        lines.notice("look"),
        lines.environment({"kernel": "6"}),
    ]
    found = lines.take(board, text)
    assert (found.notices, found.environment, found.complete) == (["look"], {"kernel": "6"}, False)
    assert lines.take(board, [lines.end()]).complete
    [row] = board.rows()
    assert (row.snapshotter, row.n, row.failures, row.p50) == ("blockfile", 1, 1, 1.5)
    assert board.failures()[0].first_failure == "no"


@pytest.mark.parametrize(
    "line", ["Traceback", "[]", '{"key": 1}', '{"key": ["a"], "value": 1}', '{"key": ["a", "b", "c"], "value": "x"}']
)
def test_lines_of_somebody_else(line: str) -> None:
    with pytest.raises(BadContent, match="no sample"):
        lines.take(Board(), [line])


def test_a_request_that_is_none() -> None:
    with pytest.raises(InvalidArgument):
        Request.from_text('{"group": "warm"}')


def test_every_round_has_another_order() -> None:
    assert rotated(STRATEGIES, 0) == list(STRATEGIES)
    assert rotated(STRATEGIES, 2) == [*STRATEGIES[1:], STRATEGIES[0]]
    assert rotated(STRATEGIES, 3) == rotated(STRATEGIES, 2)[::-1]
    neighbours = {pair for by in range(2 * len(STRATEGIES)) for pair in pairwise(rotated(STRATEGIES, by))}
    assert all((after, before) in neighbours for before, after in neighbours)
    assert rotated((), 3) == []
