"""The command that takes note of an end that nobody watched: one at a time, however many ends there are."""

from __future__ import annotations

import os
import sys

from unikeel.keeper.children import Children
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.loop import bound_log, say

_SECONDS = 120.0
#: What the command says goes to ``keeper.log``, like what the keeper says.
_LOG = 2
#: Back to the host's mount namespace, a descriptor, since the command mounts and unmounts there; then the command itself.
_ENTER = """\
import ctypes, os, sys
host = int(sys.argv[1])
if ctypes.CDLL(None).setns(host, 0x20000) != 0:
    sys.exit("cannot enter the host's mount namespace")
os.close(host)
os.execv(sys.argv[2], sys.argv[2:])
"""


def enter(argv: list[str], host: int) -> list[str]:
    """A command line that enters a mount namespace first, which is this descriptor of the process."""
    return [sys.executable, "-I", "-S", "-c", _ENTER, str(host), *argv]


class Reaper:
    """Runs the command; while one runs, one more is to follow at most for all that ends meanwhile.

    :param host: the host's mount namespace as a descriptor, if ours is another one; else -1.
    """

    def __init__(self, children: Children, host: int) -> None:
        self._children = children
        self._host = host
        self._running = False
        self._next: list[str] = []

    def run(self, argv: list[str]) -> None:
        """Have the engine look at what has ended, so that nothing of a run stays until the next command."""
        if self._running:
            self._next = argv
            return
        failpoint("keeper.reaper.start")
        try:
            if self._host >= 0:
                argv = enter(argv, 3)
            self._children.start(argv, [self._host] if self._host >= 0 else [], _LOG, self._done, seconds=_SECONDS)
            self._running = True
        except OSError as error:
            say(f"{argv[0]} cannot be run: {error}")

    def _done(self, status: int) -> None:
        if status != 0:
            say(f"the clean-up command ended with status {os.waitstatus_to_exitcode(status)}")
        bound_log()
        self._running = False
        again, self._next = self._next, []
        if again:
            self.run(again)
