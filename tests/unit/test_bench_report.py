"""The report: figures, ratios, failures and promises as text, from rows that are made up."""

from __future__ import annotations

from unikeel.bench.promises import Verdict, ratio, verdicts
from unikeel.bench.report import render
from unikeel.bench.rows import Board, Document, Key


def _board(
    cache: float = 0.5, copy: float = 20.0, ballast: float = 0.55, exec_ms: float = 120.0, tap: float = 2.0
) -> Board:
    board = Board()
    for image in ("hello", "bulky", "ballast"):
        for strategy in ("cache", "shared-view", "copy"):
            value = copy if strategy == "copy" else ballast if image == "ballast" else cache
            for step in range(200):
                board.series(Key("warm", "acquire", "ms", image, strategy, "file", None, 1, 0)).add(value + step / 1e4)
    board.series(Key("warm", "exec", "ms", "hello", "cache", "file", "crun", 1, 0)).add(exec_ms)
    board.series(Key("first", "exec", "ms", "hello", "cache", "file", "crun", 1, 0)).add(1e4)
    board.series(Key("first", "tap", "ms")).add(tap)
    board.series(Key("further", "tap", "ms")).add(1e4)
    board.series(Key("warm", "plan", "ms", "linux", "qemu")).add(tap / 10)
    return board


def _kept(found: list[Verdict]) -> list[bool | None]:
    return [verdict.kept for verdict in found]


def test_promises_that_are_kept() -> None:
    found = verdicts(_board().rows())
    assert _kept(found) == [True, True, True, True, True, True, True, None, True, True, True]
    assert found[0].measured == "0.560 ms at worst (ballast, cache, n = 200)"
    assert found[6].measured == "120.000 ms at worst (hello, cache, n = 1)"


def test_promises_that_are_missed() -> None:
    board = _board(cache=1.0, copy=25.0, ballast=1.5, exec_ms=150.0, tap=10.0)
    board.series(Key("warm", "import", "ms", "hello", "cache")).fail("no such command")
    assert _kept(verdicts(board.rows())) == [False, False, False, False, False, False, False, None, False, False, False]


def test_nothing_measured_is_not_kept() -> None:
    assert _kept(verdicts([])) == [None] * 10 + [True]


def test_a_ratio_knows_its_bounds() -> None:
    rows = _board().rows()
    times = ratio(rows[2], rows[0])
    assert times is not None
    assert times.least < times.value < times.most
    assert ratio(rows[2], None) is None
    assert ratio(None, rows[2]) is None


def test_the_text() -> None:
    board = _board()
    board.series(Key("warm", "acquire", "ms", "hello", "cache", "file", None, 1, 0)).fail("copy served instead")
    document = Document({"cores": 2, "load": [0.5, 1.0], "accelerator": {"accel": "tcg", "kvm_ms": None}}, board.rows())
    text = render(document, board.failures(), ["a notice", "a notice"])
    lines = text.splitlines()
    assert lines[:3] == ["        cores  2", "         load  0.5 1.0", "  accelerator  accel tcg"]
    [hello] = [line.split() for line in lines if line.startswith("acquire  warm      hello    cache")]
    assert hello[:13] == [
        "acquire",
        "warm",
        "hello",
        "cache",
        "0",
        "ms",
        "200",
        "1",
        "0.500",
        "0.510",
        "0.518",
        "0.519",
        "0.520",
    ]
    assert "  bulky: copy / cache = 39.2" in text
    assert "  cache: ballast / hello = 1.10 [" in text
    assert "  acquire, warm, hello, cache: 1 failed, the first: copy served instead" in lines
    assert text.count("a notice") == 1
    assert "MISSED  no sample failed, no fallback" in text
    assert "not measured  interpreter and imports: p50 under 80 ms" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
