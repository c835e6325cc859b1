"""Named points at which a test may stop the keeper, to kill it there: :mod:`unikeel.records.failpoint`, which may not be imported here.

The names begin with ``keeper``; the client hands the variables of the environment on only then. Since a command may start a second keeper
after the first one was killed, ``UNIKEEL_FAILPOINT_FILE`` must be there (the test makes a pipe): without it no keeper stops any more.
"""

from __future__ import annotations

import os
import signal

_WANTED = os.environ.get("UNIKEEL_FAILPOINT", "")
_FILE = os.environ.get("UNIKEEL_FAILPOINT_FILE", "")
_TRACE = os.environ.get("UNIKEEL_FAILPOINT_TRACE", "")
_ARMED = bool(_WANTED or _TRACE)


def failpoint(name: str) -> None:
    """Stop here if a test asked for it; otherwise nothing."""
    if not _ARMED:
        return
    if _TRACE:
        with open(_TRACE, "a", encoding="utf-8") as out:
            out.write(name + "\n")
    if name == _WANTED and os.path.exists(_FILE):
        with open(_FILE, "w", encoding="utf-8") as out:
            out.write(f"{name} {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGSTOP)
