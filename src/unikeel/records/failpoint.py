"""Named points at which a test may stop this process, to kill it there.

``UNIKEEL_FAILPOINT=name`` stops the process (SIGSTOP to itself) when it reaches that point for the first time, after
writing ``name`` and its pid to the file named by ``UNIKEEL_FAILPOINT_FILE``; the test waits for the file, kills the
process and looks at what is left. ``UNIKEEL_FAILPOINT_TRACE=file`` appends each point passed to that file, which is how the
tests learn the list of points of a start instead of keeping one. Without these variables a point costs one look at a
module constant.
"""

from __future__ import annotations

import os

from unikeel.lean import signal

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
    if name == _WANTED:
        if _FILE:
            with open(_FILE, "w", encoding="utf-8") as out:
                out.write(f"{name} {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGSTOP)
