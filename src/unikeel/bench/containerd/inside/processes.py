"""Memory and processor time of other processes: containerd's shims, our daemon and its keeper, monitors."""

from __future__ import annotations

import os
import time
from typing import Final

from unikeel.errors import NotFound, Unavailable
from unikeel.keeper.client import KeeperClient
from unikeel.keeper.starter import KeeperSettings
from unikeel.values import NamedTuple

#: Where the daemon's keeper lives.
RUN: Final = "/run/unikeel/daemon"
#: clock_getcpuclockid(3), as the kernel encodes it: the clock of all threads of a process, living and dead (CPUCLOCK_SCHED).
_SCHED: Final = 2
MB: Final = 1_000_000


def pss(pid: int) -> int:
    """A process's proportional set size in bytes; 0 if it has gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def children(pid: int) -> list[int]:
    """The processes that a process is the parent of."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Pair(NamedTuple):
    """The two processes that are resident."""

    keeper: int
    daemon: int

    @property
    def pss(self) -> float:
        """Megabytes that both hold, what they share with others counted in proportion."""
        return (pss(self.keeper) + pss(self.daemon)) / MB


def resident() -> Pair:
    """The keeper and the daemon. :raise Unavailable: they do not run."""
    client = KeeperClient(KeeperSettings(RUN, 0, 0, starts=False))
    try:
        said = client.connection().call({"op": "hello"})
    finally:
        client.close()
    keeper, daemon = said.get("pid"), said.get("daemon")
    if not isinstance(keeper, int) or not isinstance(daemon, int) or not daemon:
        raise Unavailable("the keeper has no daemon now", f"see {RUN}/keeper.log")
    return Pair(keeper, daemon)


def processor_ms(pid: int) -> float:
    """Processor time that a process has used so far, to the nanosecond. :raise NotFound: it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHED) / 1e6
    except OSError:
        raise NotFound(f"process {pid} is gone") from None


def name_of(pid: int) -> str:
    """The name of a process's program, as the kernel cuts it (15 letters); empty if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def named(*beginnings: str) -> dict[int, str]:
    """The processes whose names begin like this."""
    found = {int(entry): name_of(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    return {pid: name for pid, name in found.items() if name.startswith(beginnings)}


def helpers(pair: Pair, monitors: set[int]) -> list[int]:
    """What runs for tasks beside their monitors: the keeper's other children."""
    return [pid for pid in children(pair.keeper) if pid not in monitors and pid != pair.daemon]
