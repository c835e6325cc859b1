"""Tables, sizes, ages, and what the listings make of values."""

from __future__ import annotations

import pytest

from unikeel.boot.contract import Holding
from unikeel.cli import boot_ls, doctor, kill, output, timeline
from unikeel.doctor.findings import Finding, Level, attempt, can_run
from unikeel.engine.timeline import Timeline
from unikeel.errors import InvalidArgument, Unavailable


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = output.table(("NAME", "SIZE"), [("a", "1"), ("longer", "1000000")], right=frozenset({1}))
    assert text == "NAME       SIZE\na             1\nlonger  1000000\n"


def test_no_cell_reaches_the_terminals_controls() -> None:
    assert output.table(("N",), [("a\x1b[2Jb",)]) == "N\na?[2Jb\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (13282, "13.3 kB"), (150_000, "150 kB"), (2_000_000, "2 MB"), (5 * 10**12, "5 TB")],
)
def test_sizes(number: int, text: str) -> None:
    assert output.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "0 s")]
)
def test_ages(seconds: int, text: str) -> None:
    now = 10**18
    assert output.age(now - seconds * 10**9, now) == text


def test_never_has_no_age() -> None:
    assert output.age(0, 10**18) == "-"


def test_one_that_fails_does_not_keep_the_others_from_their_turn(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def action(name: str) -> None:
        if name in ("b", "c"):
            raise Unavailable(f"{name} is away") if name == "b" else InvalidArgument("no")
        done.append(name)

    assert output.for_each(["a", "b", "c", "d", "a"], action) == 69
    assert done == ["a", "d"]
    assert capsys.readouterr().err == "unikeel: b is away\nunikeel: no\n"


def test_a_timeline_is_indented_by_parent_with_shares_of_the_whole() -> None:
    steps = Timeline(0)
    steps.add("interpreter", 0, 25_000_000)
    with steps.span("sandbox", runtime="crun") as span:
        steps.add("inner", 25_000_000, 75_000_000, {"hit": True})
    span.start, span.end = 25_000_000, 100_000_000
    assert timeline.rendered(steps).splitlines() == [
        "STEP            MS  SHARE  NOTES",
        "interpreter   25.0   25 %",
        "sandbox       75.0   75 %  runtime=crun",
        "  inner       50.0   50 %  hit=yes",
        "total        100.0  100 %",
    ]


def test_an_empty_timeline_has_no_shares() -> None:
    assert timeline.rendered(Timeline(5)).splitlines()[-1].split() == ["total", "0.0", "100", "%"]


def test_what_is_kept_of_boot_files_is_listed_with_totals() -> None:
    holdings = [
        Holding("object", "ab" * 32, ("sha256:" + "12" * 32,), ("0123456789ab", "gone"), 2_000_000, 10**18),
        Holding("copy", "c1", (), (), 500, 0),
        Holding("shared-view", "c2", ("p",), ("t",), 0, 0, "k8s.io", "erofs", "unikeel-1"),
    ]
    assert boot_ls.rendered(holdings, {"0123456789ab": "web"}, 10**18 + 10**9).splitlines() == [
        "KIND         NAME          FROM           SIZE  SNAPSHOTS     USED BY    LEASE      LAST USED",
        "object       abababababab  -              2 MB  121212121212  web, gone  -          1 s",
        "copy         c1            -             500 B  -             nobody     -          -",
        "shared-view  c2            k8s.io/erofs    0 B  p             t          unikeel-1  -",
        "total 2 MB, reclaimable 500 B",
    ]
    described = boot_ls.described(holdings)
    assert (described["size"], described["reclaimable"]) == (2_000_500, 500)


@pytest.mark.parametrize("text", ["KILL", "SIGKILL", "sigkill", "kill", "9"])
def test_signals_by_name_and_number(text: str) -> None:
    assert kill.signal_number(text) == 9


@pytest.mark.parametrize("text", ["", "0", "99", "NOPE", "-9", "9.0"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="there is no signal"):
        kill.signal_number(text)


def test_findings_show_their_mend_and_only_problems_count() -> None:
    fine = Finding("root", Level.OK, "running as root")
    slow = attempt("reflink", Level.WARNING, "use xfs", lambda: _fail(Unavailable("no reflink")))
    broken = attempt("sandbox", Level.PROBLEM, "install crun", lambda: _fail(OSError(2, "No such file", "/x")))
    assert can_run([fine, slow])
    assert not can_run([fine, slow, broken])
    assert doctor.rendered([fine, slow, broken]).splitlines() == [
        "ok      root     running as root",
        "warning reflink  no reflink",
        "                 -> use xfs",
        "problem sandbox  /x: No such file",
        "                 -> install crun",
    ]
    assert slow.to_json() == {"check": "reflink", "level": "warning", "message": "no reflink", "mend": "use xfs"}


def _fail(error: Exception) -> str:
    raise error
