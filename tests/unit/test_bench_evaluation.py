"""The report: its words, tables, pictures and page, from samples that are known; and that nothing in a results file can make it lie or run."""

from __future__ import annotations

import html.parser
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.results import Results, read
from unikeel.bench.evaluation import breakeven, comparing, policy, report, wording, writing
from unikeel.bench.evaluation.breakeven import Cost
from unikeel.bench.inference import Difference, Interval
from unikeel.bench.rows import Key, problems
from unikeel.boot.contract import Choice
from unikeel.boot.policy import automatic
from unikeel.cli.main import entry
from unikeel.testing.synthetic_bench import campaign

_EVIL = "<script>alert(1)</script>|`x`"
_LATER = {"cache": 0.4, "shared-view": 1.0, "view": 20.0, "copy": 15.0}
_FIRST = {"cache": 40.0, "shared-view": 20.0, "view": 21.0, "copy": 34.0}


def _key(
    scenario: str, metric: str, strategy: str | None, image: str = "hello", siblings: int = 0, unit: str = "ms"
) -> Key:
    return Key(scenario, metric, unit, image, strategy, "file", "crun", 1, siblings)


def _filled(journal: Journal) -> None:
    """Thirty samples of everything, strategies some tens of percents apart, siblings and image size of no influence."""
    for number in range(30):
        noise = 1 + (number * 7 % 30) / 300
        for place, strategy in enumerate(_LATER):
            ready = _key("sequential", "ready", strategy)
            journal.sample(ready, (200 + 40 * place) * noise)
            journal.spans(
                ready,
                [
                    ("interpreter", 0, 45),
                    ("import", 45, 90),
                    ("boot-files", 91, 92 + 10 * place),
                    ("ready", 110, 200 + 40 * place),
                ],
            )
            for size in (1, 32):
                scale = size / 32 if strategy in ("cache", "copy") else 1
                journal.sample(
                    _key("boot-size", "acquire", strategy, f"boot-{size}M"),
                    _LATER[strategy] * (scale if strategy == "copy" else 1) * noise,
                )
                journal.sample(_key("first", "acquire", strategy, f"boot-{size}M"), _FIRST[strategy] * scale * noise)
        for siblings in (0, 10):
            journal.sample(_key("siblings", "ready", "cache", siblings=siblings), 200 * noise)
        for image in ("image-50M", "image-500M"):
            journal.sample(_key("image-size", "acquire", "cache", image), 0.4 * noise)
        journal.sample(_key("memory", "host", "cache", siblings=4, unit="MiB"), 1.5 * noise)
        if number % 5 == 4:
            journal.write({"done": f"block {number // 5}"})
    for _ in range(4):
        journal.failure(_key("sequential", "ready", "copy"), f"the guest was not ready in time {_EVIL}")
    journal.sample(_key("sequential", "ready", "cache", _EVIL), 1.0)
    journal.write({"environment": {"kernel": _EVIL, "cores": 2}})
    journal.write({"notice": _EVIL})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = str(tmp_path_factory.mktemp("results") / "r.jsonl")
    with Journal(found, campaign(list(_LATER), 30)) as journal:
        _filled(journal)
    return found


@pytest.fixture(scope="module")
def results(path: str) -> Results:
    return read([path])


@pytest.fixture(scope="module")
def directory(path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report")
    assert entry(["bench", "report", path, "--output", str(found)]) == 0
    return found


# -- words -----------------------------------------------------------------------------------------------------------


def test_every_faster_has_a_test_and_what_is_not_significant_is_called_that(results: Results) -> None:
    made = report.made(results)
    said = [sentence for section in made.sections for sentence in section.sentences]
    assert said
    assert all(re.search(r"p [<=] \d", sentence) for sentence in said)
    assert any("`copy` takes" in sentence and "times as much as `cache`" in sentence for sentence in said)
    quiet = [sentence for sentence in said if "siblings" in sentence]
    assert quiet
    assert all("no significant difference" in sentence for sentence in quiet)


def test_failures_are_in_the_summary_in_their_row_and_in_a_list_of_their_own(results: Results) -> None:
    made = report.made(results)
    assert "4 of" in made.summary[0]
    assert "4 by time-out" in made.summary[0]
    [row] = [row for row in made.sections[0].rows if row[0].startswith("ready") and row[2] == "copy"]
    assert row[4:6] == ("34", "4 time-out")
    assert row[9] == "∞ [348, ∞)", "p90 lies among the failures"
    assert made.failures
    assert "not ready in time" in made.failures[0]


def test_percentiles_only_where_enough_samples_support_them(results: Results) -> None:
    made = report.made(results)
    [one] = [row for row in made.sections[0].rows if row[1] == _EVIL]
    assert one[8:12] == ("1.00", "-", "-", "-")
    [many] = [row for row in made.sections[0].rows if row[0].startswith("ready") and row[1:3] == ("hello", "cache")]
    assert "[" in many[8]
    assert "[" in many[9]
    assert many[10:12] == ("-", "-")


def test_rows_of_several_scenarios_can_be_told_apart(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    with Journal(path, campaign(["view"], 1)) as journal:
        for layer in ("whole", "lowest"):
            journal.sample(_key(f"layers, {layer}", "acquire", "view"), 1.0)
    [section] = report.made(read([path])).sections
    assert section.name == "layers"
    assert len({row[0] for row in section.rows}) == 2


@pytest.mark.parametrize(
    ("direction", "ratio", "expected"),
    [
        (-1, 2.0, "`copy` takes 2.00 [1.50, 4.00] times as much as `cache`"),
        (1, 0.5, "`cache` takes 2.00 [0.25, 0.67] times"),
    ],
)
def test_a_quotient_is_never_told_the_wrong_way_round(
    results: Results, direction: int, ratio: float, expected: str
) -> None:
    first, second = (results.series[_key("sequential", "ready", name)] for name in ("cache", "copy"))
    span = Interval(1.5, 4.0)
    said = wording.difference(first, second, Difference(ratio, span, 0.001, direction))
    assert said.startswith("ready of hello (sequential): " + expected)


# -- break-even ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        (Cost(40, 0.4), Cost(20, 1.0), 35),
        (Cost(170, 0), Cost(14, 14), 13),
        (Cost(1, 1), Cost(2, 2), 1),
        (Cost(1, 2), Cost(2, 1), math.inf),
        (Cost(5, 5), Cost(5, 5), math.inf),
        (Cost(3, 1), Cost(2, 1), math.inf),
    ],
)
def test_after_how_many_it_has_paid(one: Cost, other: Cost, count: float) -> None:
    assert breakeven.after(one, other) == count
    if math.isfinite(count):
        assert one.of(int(count)) < other.of(int(count))
        assert count == 1 or one.of(int(count) - 1) >= other.of(int(count) - 1)


def test_measured_and_by_the_model(results: Results) -> None:
    found = {(point.strategy, point.other, point.megabytes): point for point in breakeven.points(results)}
    point = found["cache", "shared-view", 32]
    assert point.measured == 35
    assert point.interval.low <= 35 <= point.interval.high
    assert point.model == pytest.approx(35, abs=2)
    assert found["cache", "copy", 32].measured == 2


# -- pictures and page -----------------------------------------------------------------------------------------------


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_one_file_that_loads_and_runs_nothing(directory: Path) -> None:
    text = (directory / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert "url(http" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert page.tags.count("svg") >= 6
    assert any(_EVIL in piece for piece in page.text), "what is odd is shown, not interpreted"


def test_every_question_has_a_table_and_pictures_of_each_kind_are_there(directory: Path, results: Results) -> None:
    text = (directory / "report.html").read_text(encoding="utf-8")
    made = report.made(results)
    for section in made.sections:
        assert section.rows
        assert f'id="{section.name}"' in text
    names = [name.removesuffix(".svg") for name in os.listdir(directory) if name.endswith(".svg")]
    for kind in ("distribution", "timeline", "scaling", "break-even"):
        assert any(name.startswith(kind) for name in names), kind
    for name in names:
        assert (directory / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (directory / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<svg")
        assert "#010203" not in svg
    assert problems(json.loads((directory / "rows.json").read_text(encoding="utf-8"))) == []


@pytest.mark.long
def test_the_same_samples_make_the_same_report(directory: Path, path: str, tmp_path: Path) -> None:
    writing.write(read([path]), str(tmp_path))
    for name in os.listdir(directory):
        assert (directory / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_markdown_keeps_its_tables_whatever_is_in_them(results: Results) -> None:
    text = writing.text(results)
    assert "<script" not in text.replace("\\<", "")
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 7, len(report.COLUMNS) + 1), line


def test_without_matplotlib_a_sentence_says_so(path: str) -> None:
    code = f"import sys; sys.modules['matplotlib'] = None\nfrom unikeel.cli.main import entry\nsys.exit(entry(['bench', 'report', {path!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 69
    assert "pip install 'unikeel[bench]'" in done.stderr
    assert "Traceback" not in done.stderr


# -- comparing -------------------------------------------------------------------------------------------------------


def test_two_runs_that_agree_and_two_that_do_not(results: Results) -> None:
    same = comparing.agreement(results, results)
    assert same.confirmed
    assert (same.contradicted, same.unknown) == ([], [])
    assert comparing.changes(results, results) == []
    one, other = (_key("sequential", "ready", name) for name in ("cache", "shared-view"))
    swapped = dict(results.series)
    swapped[one], swapped[other] = swapped[other]._replace(key=one), swapped[one]._replace(key=other)
    found = comparing.agreement(results, results._replace(series=swapped))
    assert any("shared-view" in sentence and "(sequential)" in sentence for sentence in found.contradicted)
    assert any(
        "by `cache`: more" in sentence for sentence in comparing.changes(results, results._replace(series=swapped))
    )


def test_auto_s_criterion() -> None:
    costs = {name: Cost(_FIRST[name], _LATER[name]) for name in _LATER}
    assert policy.best(costs) == "cache"
    assert policy.best(costs | {"cache": Cost(100, 0.4)}) == "shared-view", "it must have paid at the second container"
    assert policy.best({"copy": Cost(1, 1), "view": Cost(9, 9)}) == "copy"
    assert automatic("ext4", trusted=True, available=frozenset(Choice)) is Choice.CACHE
