"""The example of the Python API in docs/ does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TOP = Path(__file__).resolve().parents[2]


def test_the_example_runs_and_leaves_no_container(tmp_path: Path) -> None:
    archive = _TOP / "build" / "samples" / "hello.tar"
    assert archive.exists(), "run `make samples`"
    done = subprocess.run(
        [sys.executable, str(_TOP / "docs" / "example.py"), str(archive), str(tmp_path / "root")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "exit code 3" in done.stdout
    assert "hello from a unikernel" in done.stdout
    assert "boot-files" in done.stdout
    assert list((tmp_path / "root" / "containers").iterdir()) == []
