"""``python -m unikeel.bench.launcher``: how long the launcher takes for a ``start``, from its execution to its end, beside the least that any program takes.

Whoever answers is a thread of this process, which does so at once and whose time is in the figures; what the daemon takes is not. Both programs run in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from unikeel.bench.statistics import summarize
from unikeel.containerd.wire.launcher_pb2 import LaunchResponse
from unikeel.containerd.wire.ttrpc_pb2 import Response
from unikeel.errors import Unavailable, UnikeelError
from unikeel.shim.launcher import binary

_HEAD: Final = struct.Struct(">IIBB")
_RESPONSE: Final = 2
_SECONDS: Final = 30.0
_SAMPLES: Final = 200
#: As containerd has it.
_WORDS: Final = ("-namespace", "bench", "-address", "/run/bench.sock", "-id", "bench", "start")
_ADDRESS: Final = b"unix:///run/unikeel/daemon/c/bench.sock"


class _Answering:
    """A daemon that has one answer; until it is closed."""

    def __init__(self, path: str) -> None:
        payload = LaunchResponse(output=_ADDRESS).SerializeToString()
        body = Response(payload=payload).SerializeToString()
        self._answer = _HEAD.pack(len(body), 1, _RESPONSE, 0) + body
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError, struct.error):
                size = _HEAD.unpack(connection.recv(_HEAD.size, socket.MSG_WAITALL))[0]
                connection.recv(size, socket.MSG_WAITALL)
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_SECONDS)


def _taken(words: Sequence[str], directory: str, expected: bytes) -> float:
    """Milliseconds of one execution, as containerd waits for it. :raise Unavailable: it did not do what it should."""
    environment = {"PATH": os.defpath, "UNIKEEL_LAUNCH_SOCKET": os.path.join(directory, "launch.sock")}
    begun = time.perf_counter_ns()
    done = subprocess.run(
        words,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )
    took = (time.perf_counter_ns() - begun) / 1e6
    if done.returncode or done.stdout != expected:
        raise Unavailable(f"{words[0]} ended with {done.returncode}: {done.stdout[:200]!r}")
    return took


def measure(samples: int) -> dict[str, list[float]]:
    """Milliseconds of each execution, by what was executed. :raise NotFound: there is no launcher. :raise Unavailable: it fails."""
    launcher = binary()
    other = shutil.which("true") or "/bin/true"
    taken: dict[str, list[float]] = {"launcher": [], "true": []}
    with tempfile.TemporaryDirectory(prefix="unikeel-bench-") as directory:
        answering = _Answering(os.path.join(directory, "launch.sock"))
        try:
            for _ in range(samples):
                taken["launcher"].append(_taken([launcher, *_WORDS], directory, _ADDRESS))
                taken["true"].append(_taken([other], directory, b""))
        finally:
            answering.close()
    return taken


def _cell(figure: float | None) -> str:
    return f"{'-' if figure is None else f'{figure:.2f}':>9}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m unikeel.bench.launcher", description="Measure how long the launcher takes for a start."
    )
    parser.add_argument("--samples", type=int, default=_SAMPLES, metavar="N", help=f"executions of each ({_SAMPLES})")
    samples = parser.parse_args(argv).samples
    if samples < 1:
        parser.error("--samples is at least 1")
    try:
        taken = measure(samples)
    except UnikeelError as error:
        print(f"unikeel: {error}", file=sys.stderr)
        return 1
    print(f"{'ms':10}{'n':>6}{'min':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}")
    for name, values in taken.items():
        found = summarize(values)
        figures = (found.min, found.p50, found.p90, found.p99, found.max)
        print(f"{name:10}{len(values):>6}" + "".join(map(_cell, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
