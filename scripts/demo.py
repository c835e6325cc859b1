"""The main job, shown: nginx as a guest that boots from its image's block snapshot, its page fetched, each step timed.

Run by ``make demo``, as root. Everything happens in a state root of its own, which is removed at the end, so that it can be
repeated and leaves nothing behind. Only the command line is used, so what is shown can be typed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ARCHIVE = os.path.join(HERE, "build", "samples", "nginx.tar")
STRATEGIES = ("cache", "shared-view", "view", "copy")
READY_SECONDS = "300"
STEPS = ("boot-files", "sandbox", "exec", "vcpu", "ready")


class Failed(Exception):
    """The demo could not do what it shows."""


class Unikeel:
    """The command line, on a state root of the demo's own."""

    def __init__(self, root: str) -> None:
        self._program = os.path.join(os.path.dirname(sys.executable), "unikeel")
        self._environment = {**os.environ, "UNIKEEL_ROOT": root}

    def __call__(self, *words: str, show: bool = True) -> str:
        """Run one command; its standard output. :raise Failed: it did not succeed; its own message was shown."""
        if show:
            print(f"\n$ unikeel {shlex.join(words)}", flush=True)
        done = self._run(words, None)
        if done.returncode:
            raise Failed(f"unikeel {words[0]} ended with status {done.returncode}")
        return done.stdout

    def remove(self, name: str) -> None:
        """Remove a container, whatever became of it."""
        self._run(("rm", "-f", name), subprocess.DEVNULL)

    def _run(self, words: Sequence[str], stderr: int | None) -> subprocess.CompletedProcess[str]:
        argv = [self._program, *words]
        return subprocess.run(
            argv, env=self._environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int) -> str:
    """The title of the page that is served. :raise Failed: no such page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        page = answer.read().decode(errors="replace")
    except OSError as error:
        raise Failed(f"the page cannot be fetched: {error}") from error
    finally:
        connection.close()
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    if answer.status != http.client.OK or title is None:
        raise Failed(f"the guest's web server answered {answer.status} {answer.reason}, without a page")
    return title[1].strip()


@contextmanager
def running(unikeel: Unikeel, name: str, *options: str, show: bool) -> Iterator[int]:
    """nginx in a guest that is ready, and removed at the end; the host's port that leads to it."""
    port = free_port()
    ready = ("--ready", "port:80", "--timeout", READY_SECONDS)
    try:
        ident = unikeel("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:80", *ready, *options, "nginx", show=show)
        if show:
            print(ident.strip())
        yield port
    finally:
        unikeel.remove(name)


def measured(unikeel: Unikeel, strategy: str) -> tuple[str, list[float]]:
    """One warm start by a strategy: which one really served, and the milliseconds of :data:`STEPS` and of all."""
    with running(unikeel, f"demo-{strategy}", "--boot-files", strategy, show=False):
        timeline = json.loads(unikeel("timeline", "--json", f"demo-{strategy}", show=False))
    took: dict[str, float] = {}
    served = ""
    for span in timeline["spans"]:
        took[span["name"]] = (span["end"] - span["start"]) / 1e6
        if span["name"] == "boot-files":
            served = span["attributes"]["strategy"]
    whole = (max(span["end"] for span in timeline["spans"]) - timeline["start"]) / 1e6
    return served, [*(took.get(step, 0.0) for step in STEPS), whole]


def table(rows: Sequence[tuple[str, list[float]]]) -> None:
    """One line a strategy, milliseconds."""
    print(f"{'strategy':<12}" + "".join(f"{step:>12}" for step in (*STEPS, "whole start")))
    for name, figures in rows:
        print(f"{name:<12}" + "".join(f"{figure:>12.1f}" for figure in figures))


def show(root: str) -> str:
    """All of it; what to say at the end."""
    unikeel = Unikeel(root)
    print(unikeel("version").strip())
    print(unikeel("image", "load", ARCHIVE).strip())
    with running(unikeel, "web", show=True) as port:
        print(f"\n$ curl http://127.0.0.1:{port}/")
        title = fetch(port)
        print(title)
        print(unikeel("ps").rstrip())
        print(unikeel("timeline", "web").rstrip())
        print(unikeel("stop", "web").rstrip())
    print(
        "\nThe same start by each strategy (milliseconds; a second start of the image, so that what can be shared is there):\n"
    )
    rows = []
    for strategy in STRATEGIES:
        measured(unikeel, strategy)
        served, figures = measured(unikeel, strategy)
        if served != strategy:
            raise Failed(f"the strategy {strategy} does not work on this host: {served} served instead")
        rows.append((strategy, figures))
    table(rows)
    left = unikeel("ps", "-a", "-q", show=False).strip()
    if left:
        raise Failed(f"containers are left: {left}")
    return (
        f"demo: ok: nginx booted from its block snapshot and served {title!r}, its boot files by {len(rows)} strategies"
    )


def main() -> int:
    """The process's exit status."""
    if os.geteuid() != 0:
        print("demo: failed: it makes mounts, loop devices and sandboxes: run it as root", file=sys.stderr)
        return 1
    if not os.path.exists(ARCHIVE):
        print(f"demo: failed: {ARCHIVE} is missing: run `make samples`", file=sys.stderr)
        return 1
    root = tempfile.mkdtemp(prefix="unikeel-demo-")
    try:
        sentence = show(root)
    except Failed as error:
        print(f"demo: failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"\n{sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
