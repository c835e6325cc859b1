"""Running the host's tools, and telling how a build goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from lab.errors import LabError

#: How a step tells that it begins.
Tell = Callable[[str], None]


def run(
    argv: Sequence[str],
    *,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> str:
    """What a tool prints. :param log: takes everything it prints instead. :raise LabError: it fails, is not there or takes too long."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            env=dict(environment) if environment is not None else None,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not there: make packages installs it") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shown(argv)}` has not ended after {timeout:.0f} s") from None
    if done.returncode:
        said = f"see {log.name}" if log else tail((done.stderr or done.stdout).decode(errors="replace"))
        raise LabError(f"`{shown(argv)}` failed with exit status {done.returncode}: {said}")
    return (done.stdout or b"").decode(errors="replace")


def shown(argv: Sequence[str]) -> str:
    """A command line, cut to a readable length."""
    line = " ".join(argv).replace("\n", " ")
    return line if len(line) <= 200 else line[:200] + "…"


def tail(text: str, length: int = 1500) -> str:
    """The end of what was printed, on one line."""
    return " | ".join(line for line in text.strip()[-length:].splitlines() if line.strip()) or "nothing was said"


class Progress:
    """Tells steps on standard error: at a terminal one line that changes, elsewhere one line for each step that is done."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._step = ""
        self._began = 0.0

    def __call__(self, step: str) -> None:
        """A step begins; an empty one only ends the one before."""
        if self._step:
            line = f"lab: {self._step} ({time.monotonic() - self._began:.1f} s)"
            print(f"\r\x1b[K{line}" if self._terminal else line, file=sys.stderr, flush=True)
        self._step, self._began = step, time.monotonic()
        if step and self._terminal:
            print(f"lab: {step} …", end="", file=sys.stderr, flush=True)


def clean_environment() -> dict[str, str]:
    """This process's environment for a program of another root: nothing that belongs to this interpreter, plain messages."""
    mine = ("PYTHON", "VIRTUAL_ENV", "LC_", "LANG", "PATH", "TMPDIR", "HOME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    return kept | {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
    }
