"""The tests' own promise: a tier that was asked for does not skip (tests/conftest.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.unit_tests import dealt

TESTS = Path(__file__).parent.parent
MODULES = {
    "test_a.py": "import pytest\ndef test_runs(): pass\ndef test_skips(): pytest.skip('no means')\n"
    "@pytest.mark.skipif(True, reason='never')\ndef test_marked(): pass\n"
    "@pytest.mark.xfail(strict=True)\ndef test_expected(): assert False\n"
    "@pytest.mark.long\ndef test_long(): pass\n",
    "test_b.py": "import pytest\npytest.importorskip('no_such_module')\ndef test_never(): pass\n",
}


def run(directory: Path, conftest: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(conftest, directory / "conftest.py")
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = long: as in pyproject.toml\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rsf",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        ".",
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("UNIKEEL", "PYTEST"))}
    return subprocess.run(
        command, cwd=directory, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_without_a_tier_what_the_machine_cannot_do_is_skipped(modules: Path) -> None:
    done = run(modules, TESTS / "conftest.py")
    assert "1 passed, 3 skipped, 1 deselected, 1 xfailed" in done.stdout
    assert done.returncode == 0


def test_in_a_tier_that_was_asked_for_a_skip_is_a_failure(modules: Path) -> None:
    done = run(modules, TESTS / "conftest.py", UNIKEEL_TIER="unit")
    assert "1 failed, 1 passed, 1 deselected, 1 xfailed, 2 errors" in done.stdout
    assert "test_skips: the tier unit was asked for and may not skip anything: Skipped: no means" in done.stdout
    assert done.returncode == 1


def test_long_tests_run_when_they_are_asked_for(modules: Path) -> None:
    assert "2 passed, 3 skipped, 1 xfailed" in run(modules, TESTS / "conftest.py", UNIKEEL_LONG="1").stdout


def unprivileged(conftest: Path) -> str:
    """A conftest that sees an ordinary user."""
    return f"import os\nos.geteuid = lambda: 1000\n{conftest.read_text()}".replace(
        "from __future__ import annotations\n", ""
    )


def test_the_root_tier_says_that_it_needs_root(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    conftest = tmp_path_factory.mktemp("conftest") / "conftest.py"
    conftest.write_text(unprivileged(TESTS / "root" / "conftest.py"))
    asked = run(modules, conftest, UNIKEEL_TIER="root")
    assert "the tests in tests/root need root, and the tier root was asked for: run it as root" in asked.stderr
    assert asked.returncode == pytest.ExitCode.USAGE_ERROR
    assert "6 skipped" in run(modules, conftest).stdout


@pytest.mark.parametrize("hands", [1, 2, 4, 50])
def test_every_file_of_unit_tests_is_run_once(hands: int) -> None:
    files = [Path(f"test_{number}.py") for number in range(9)]
    found = dealt(files, hands)
    assert sorted(file for hand in found for file in hand) == files
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert len(found) == min(hands, len(files))
