"""The unit tests in two processes for each processor, at most four; their output one after the other. For `make check` and `make test`.

The other tiers run one test at a time: they measure, and start virtual machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent
_MOST = 4
#: Processes for each processor: half of the time is spent waiting.
_EACH = 2


def dealt(files: Sequence[Path], hands: int) -> list[list[Path]]:
    """Files in so many hands, each file whole. Neighbours by name take about as long as each other, and go to different ones."""
    return [hand for hand in (sorted(files)[number::hands] for number in range(hands)) if hand]


def main(options: Sequence[str]) -> int:
    """Run them all; 1 if any of the processes failed. :param options: pytest's."""
    hands = dealt(list((_PROJECT / "tests" / "unit").glob("test_*.py")), min(_EACH * (os.cpu_count() or 1), _MOST))
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    with tempfile.TemporaryDirectory(prefix="unikeel-units-") as scratch:
        try:
            for number, hand in enumerate(hands):
                said = Path(scratch) / str(number)
                argv = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir=.pytest_cache/{number}", *options]
                with said.open("wb") as output:
                    process = subprocess.Popen([*argv, *map(str, hand)], cwd=_PROJECT, stdout=output, stderr=output)
                running.append((process, said))
            failed = False
            for process, said in running:
                failed = process.wait() != 0 or failed
                sys.stdout.write(said.read_text(encoding="utf-8", errors="replace"))
                sys.stdout.flush()
        finally:
            for process, _ in running:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
