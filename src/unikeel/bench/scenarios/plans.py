"""``plan``: a launch plan from a request, by guest and monitor (as ``image`` and ``strategy`` of a row): an ordinary one, with disk, network, arguments and variables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from unikeel import monitors
from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key
from unikeel.bench.stage import Stage
from unikeel.guests import guest as find_guest
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import PAIRS
from unikeel.model.plan import DiskSpec, LaunchRequest, TapNet
from unikeel.monitors.contract import Facts

_SAMPLES: Final = 200
_FACTS: Final = Facts("/usr/bin/monitor", (99, 0), ("/usr/bin/monitor", "/usr/lib/x86_64-linux-gnu"), "")
_NETWORK: Final = TapNet("10.88.7.2", 24, "10.88.7.1", "10.88.7.1", "52:54:00:12:34:56", "uk-0123456789ab", mtu=1450)
_VARIABLES: Final = tuple(f"VARIABLE_{number}=a value of some length" for number in range(20))


def measure(_stage: Stage | None, plan: Plan, board: Board, progress: Progress) -> None:
    """Each pair in turn, in rounds."""
    if not plan.wants("plan"):
        return
    requests = list(_requests())
    count = plan.count(_SAMPLES)
    for number in range(count):
        progress.at("plans", number, count)
        for request in requests:
            series = board.series(Key("warm", "plan", "ms", request.guest.type, request.guest.monitor))
            begun = time.perf_counter_ns()
            monitors.plan(request, _FACTS)
            series.add((time.perf_counter_ns() - begun) / 1e6)


def _requests() -> Iterator[LaunchRequest]:
    """One for each pair that is offered."""
    for monitor, guests in PAIRS.items():
        if monitor not in monitors.offered():
            continue
        traits = monitors.monitor(monitor).traits
        for name in guests:
            kind = find_guest(name)
            accel = next(iter(traits.accels), "host")
            config = GuestConfig(type=name, monitor=monitor, binary="/boot/kernel")
            yield LaunchRequest(
                name="web",
                guest=config,
                args=("/usr/sbin/nginx", "-g", "daemon off;"),
                env=_VARIABLES if kind.environment else (),
                memory_mib=256,
                vcpus=1,
                machine=kind.machine(accel, ""),
                accel=accel,
                disk=DiskSpec("raw") if kind.block.supported else None,
                network=_NETWORK if kind.network and "tap" in traits.networks else None,
            )
