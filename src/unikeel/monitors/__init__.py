"""Monitors, one file per kind: from a launch request to a :class:`unikeel.model.plan.LaunchPlan`.

The registry is the directory: monitor ``x`` is the object ``MONITOR`` of ``unikeel/monitors/x.py`` (a dash becomes an underscore), imported when
it is first asked for. To add a monitor, add its file, and its row to :data:`unikeel.model.names.PAIRS` if it is not there.
"""

from __future__ import annotations

import sys
from functools import cache

from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.lean import TYPE_CHECKING
from unikeel.model.names import MONITORS, PAIRS, quote, unknown_hint

if TYPE_CHECKING:
    from unikeel.model.plan import LaunchPlan, LaunchRequest
    from unikeel.monitors.contract import Facts, Monitor


@cache
def monitor(name: str) -> Monitor:
    """The monitor of this name.

    :raises InvalidArgument: no such monitor is known; the hint names those known and the nearest spelling.
    :raises Unimplemented: known, and not offered by this version.
    """
    if name not in MONITORS:
        raise InvalidArgument(f"monitor {quote(name)} is unknown", unknown_hint(name, MONITORS))
    module = f"{__name__}.{name.replace('-', '_')}"
    try:
        __import__(module)  # importlib would be a module more
        found: Monitor = sys.modules[module].MONITOR
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise Unimplemented(
            f"monitor {name!r} is known but not offered by this version", f"offered: {', '.join(offered())}"
        ) from None
    return found


def offered() -> tuple[str, ...]:
    """The monitors that this version offers, sorted."""
    from importlib.util import find_spec

    return tuple(sorted(name for name in MONITORS if find_spec(f"{__name__}.{name.replace('-', '_')}")))


def plan(request: LaunchRequest, facts: Facts) -> LaunchPlan:
    """What to launch for a request, by its monitor and its guest: pure.

    :param facts: what :meth:`~unikeel.monitors.contract.Monitor.probe` of the request's monitor found.
    :raises InvalidArgument: the pair does not fit, or the request asks for something that cannot be.
    :raises Unimplemented: the guest or the monitor is not offered by this version.
    """
    from unikeel.guests import guest

    kind, of = monitor(request.guest.monitor), guest(request.guest.type)
    if request.guest.type not in PAIRS[request.guest.monitor]:
        raise InvalidArgument(f"monitor {request.guest.monitor!r} cannot run guest {request.guest.type!r}")
    if request.virtio_console and not kind.traits.virtio_console:
        raise InvalidArgument(
            f"the monitor {request.guest.monitor} has no virtio console",
            "leave org.unikeel.console out, or choose another monitor",
        )
    return kind.plan(request, of, facts)
