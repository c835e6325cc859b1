"""Coverage-guided fuzzing of what users and images configure with, and of addresses: some thousand inputs, in the long form a minute for each target."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fuzz")
_LONG = os.environ.get("UNIKEEL_LONG") == "1"
_SECONDS = 240


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("target", ["fuzz_configuration.py", "fuzz_network.py"])
def test_no_input_is_a_crash(tmp_path: Path, target: str) -> None:
    limit = "-max_total_time=60" if _LONG else "-runs=20000"
    done = subprocess.run(
        [sys.executable, os.path.join(_DIRECTORY, target), limit, f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
