"""The command line as a subprocess on a state root of its own, with the sample images loaded."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = (sys.executable, "-m", "unikeel.cli.main")
#: Seconds that any one command may take here, on a slow machine without KVM.
LIMIT = 120


class Cli:
    """Runs ``unikeel`` on one state root; every call has a limit of time."""

    def __init__(self, directory: str) -> None:
        self.root = os.path.join(directory, "root")
        self.directory = directory
        config = os.path.join(directory, "config.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[keeper]\nidle = 0.5\nview_idle = 0.2\n")
        self.environment = {**os.environ, "UNIKEEL_ROOT": self.root, "UNIKEEL_CONFIG": config}

    def run(self, *words: str, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end; standard input is empty unless given."""
        return subprocess.run(
            [*PROGRAM, *words],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            env={**self.environment, **environment},
            timeout=LIMIT,
        )

    def good(self, *words: str, stdin: bytes | None = None) -> str:
        """The output of a command that must succeed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.good(*words))

    def bad(self, *words: str) -> tuple[int, str]:
        """Exit code and message of a command that must fail, with one sentence and no traceback."""
        done = self.run(*words)
        text = done.stderr.decode()
        assert done.returncode != 0, (words, done.stdout)
        assert text.startswith("unikeel: "), text
        assert "Traceback" not in text
        assert text.count("\n") == 1, text
        return done.returncode, text

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command, with its standard output as a pipe."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": self.environment,
        }
        return subprocess.Popen([*PROGRAM, *words], **{**settings, **options})

    def state(self, reference: str) -> str:
        """A container's state."""
        found = self.json("inspect", reference)[0]["state"]
        assert isinstance(found, str)
        return found

    def clear(self) -> None:
        """Remove all containers, for the next test."""
        names = self.good("ps", "-aq").split()
        if names:
            self.good("rm", "-f", *names)

    def processes(self) -> list[str]:
        """The processes that name the state root, and do not end within half a minute."""
        return [line for line in _processes(self.root) if not _ends(int(line.split()[0]))]

    def leftovers(self) -> list[str]:
        """What is left of containers, when there should be none."""
        found = [f"container {name}" for name in self.good("ps", "-aq").split()]
        found += [f"process {line}" for line in self.processes()]
        for place in ("containers", "owners", "run/bundles", "run/oci"):
            path = os.path.join(self.root, place)
            found += [f"{place}/{name}" for name in os.listdir(path)] if os.path.isdir(path) else []
        return found


def _processes(root: str) -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if root in command and int(pid) != os.getpid():
            yield f"{pid} {command}"


def _ends(pid: int) -> bool:
    """Whether a process ends within half a minute: the keeper stays a while after its last work."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 30)[0])
    finally:
        os.close(process)


def sample(name: str) -> str:
    """The archive of a sample image; the tests stop if it was not built."""
    path = os.path.join(ROOT, f"build/samples/{name}.tar")
    if not os.path.exists(path):
        pytest.fail(f"{path} is missing: run `make samples` first", pytrace=False)
    return path


@contextmanager
def world(directory: str, *samples: str) -> Iterator[Cli]:
    """A state root with sample images; at its end nothing may be left."""
    if os.geteuid() != 0:
        pytest.fail("these tests need root", pytrace=False)
    cli = Cli(directory)
    for name in samples:
        cli.good("image", "load", sample(name))
    yield cli
    left = cli.leftovers()
    assert left == [], left


def read_until(stream: int, wanted: bytes) -> bytes:
    """Read a descriptor until some bytes have come. Fails at its end; the test's limit of time ends a wait in vain."""
    seen = b""
    while wanted not in seen:
        try:
            data = os.read(stream, 4096)
        except OSError:  # a pseudo-terminal whose other side is closed
            data = b""
        assert data, f"the output ended without {wanted!r}: {seen!r}"
        seen += data
    return seen
