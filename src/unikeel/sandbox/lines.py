"""How a running monitor is reached: by what, and where."""

from __future__ import annotations

from unikeel.model.plan import Control
from unikeel.values import NamedTuple


class Line(NamedTuple):
    """A monitor's control: ``directory`` has its sockets, except those that it makes in its own sandbox, found by its ``pid``,
    which is believed only with its ``start_time`` (clock ticks since the host's boot)."""

    control: Control
    directory: str
    pid: int = 0
    start_time: int = 0
