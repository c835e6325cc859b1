"""A process in a lab whose samples are taken while it runs: an interruption, of the run or of the host, loses the sample that is under way and no other.

The process prints to a file of the lab, which is looked into from here now and then. That is a matter of what is kept, never of what is timed: the times are taken inside.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from unikeel.bench.lines import Found, Reader
from unikeel.bench.rows import Board
from unikeel.errors import Unavailable

if TYPE_CHECKING:
    import subprocess

    from lab.place import Place

#: Seconds between two looks, multiplied by the place's slowness.
_PAUSE: Final = 0.5
_DIRECTORY: Final = "/var/tmp"  # noqa: S108 - of the lab, which has one user
_ERRORS_KEPT: Final = 1000
#: $1 takes what the rest of the words prints.
_INTO_FILE: Final = 'out=$1; shift; exec "$@" >"$out"'


def taken(
    place: Place, argv: Sequence[str], board: Board, what: str, timeout: float, *, directory: str = _DIRECTORY
) -> Found:
    """Run a program that prints :mod:`unikeel.bench.lines` to its end, its samples on the board as they come.

    :param what: its name in messages. :param timeout: seconds after which it is stuck. :param directory: of the lab, where the file is made.
    :raise Unavailable: it cannot be run, or did not come to its end; what it had measured until then is on the board.
    """
    path = f"{directory}/bench-{secrets.token_hex(6)}.lines"
    work = _Work(lambda: place.run(["sh", "-c", _INTO_FILE, "sh", path, *argv], timeout=timeout, check=False))
    reader, read = Reader(board), 0
    while True:
        ended = work.ended.wait(_PAUSE * place.slowness)
        data = _content(place, path)
        whole = data.rfind(b"\n", read) + 1
        if whole > read:
            reader.feed(data[read:whole].decode(errors="replace"))
            read = whole
        if ended:
            break
    found = reader.found()
    if work.problem is not None:
        raise Unavailable(f"{what}: {work.problem}") from None
    if not found.complete:
        assert work.done is not None
        said = [line for line in work.done.stderr[-_ERRORS_KEPT:].splitlines() if line.strip()]
        raise Unavailable(f"{what}: {said[-1] if said else f'the process ended with status {work.done.returncode}'}")
    return found


class _Work:
    """A call in a thread of its own. Nobody waits for it when the run is interrupted: it ends with the lab."""

    def __init__(self, call: Callable[[], subprocess.CompletedProcess[str]]) -> None:
        self.done: subprocess.CompletedProcess[str] | None = None
        self.problem: Exception | None = None
        self.ended = threading.Event()
        self._call = call
        threading.Thread(target=self._run, name="bench block", daemon=True).start()

    def _run(self) -> None:
        try:
            self.done = self._call()
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            self.problem = error
        finally:
            self.ended.set()


def _content(place: Place, path: str) -> bytes:
    from lab.errors import LabError

    try:
        return place.get(path)
    except LabError:
        return b""  # it has printed nothing yet, or the lab is gone, which the call says, too
