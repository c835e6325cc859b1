"""The timeline's zero point: the start of the command, not our first line of code."""

from __future__ import annotations

import os
import time

from unikeel.lean import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.timeline import Timeline

#: A caller that measures may name the instant in which it started us: nanoseconds of the monotonic clock.
VARIABLE: Final = "UNIKEEL_START_NS"
#: An older instant than this is not of this call.
_RECENT_NS: Final = 60 * 10**9


def process_start() -> int:
    """When this process started, in nanoseconds of the monotonic clock; exact to 10 ms, the kernel's tick (proc(5), field 22).

    The kernel counts from its boot, including sleep; the monotonic clock leaves sleep out, so the age is what is taken over.
    """
    now = time.monotonic_ns()
    given = os.environ.get(VARIABLE, "")
    if given.isascii() and given.isdigit() and len(given) < 20 and 0 <= now - int(given) < _RECENT_NS:
        return int(given)
    try:
        fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            ticks = int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
        finally:
            os.close(fd)
    except (OSError, ValueError, IndexError):
        return now
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 10**9 // os.sysconf("SC_CLK_TCK")
    return now - age if 0 <= age < _RECENT_NS else now


def new_timeline(session: Session) -> Timeline:
    """A timeline that begins with the process: the interpreter's start, and the imports up to this call."""
    from unikeel.engine.timeline import Timeline

    timeline = Timeline(session.started)
    timeline.add("interpreter", session.started, session.loaded)
    timeline.add("import", session.loaded, time.monotonic_ns())
    return timeline
