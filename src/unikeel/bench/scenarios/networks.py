"""``tap``: a guest's network in a pod's namespace, from entering it to the last filter (scenario ``first``: the namespace's first guest; ``further``: one that shares its address).

The namespace is a real one, with a veth link, an address and a default route. What the kernel needs to take the device away again is not counted: that happens when the
monitor's descriptors are closed, in its own end.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from typing import Final

from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key, Series
from unikeel.bench.stage import Stage
from unikeel.errors import UnikeelError
from unikeel.kernel import netns
from unikeel.kernel.fd import OwnedFd
from unikeel.network import tap
from unikeel.network.ports import parse_forwarded

_SAMPLES: Final = 200
_LINES: Final = """\
link add e0 type veth peer name e1
link set e0 up mtu 1450
link set e1 up
addr add 10.9.0.2/24 dev e0
addr add fd09::2/64 dev e0 nodad
route add default via 10.9.0.1
route add default via fd09::1
"""
_SECONDS: Final = 30


def measure(stage: Stage | None, plan: Plan, board: Board, progress: Progress) -> None:
    """One namespace, and a guest's network made in it again and again."""
    if not plan.wants("tap"):
        return
    first, further = (board.series(Key(scenario, "tap", "ms")) for scenario in ("first", "further"))
    count = plan.count(_SAMPLES)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pod")
        try:
            netns.make(path)
            subprocess.run(
                ["nsenter", f"--net={path}", "ip", "-batch", "-"],
                input=_LINES.encode(),
                check=True,
                capture_output=True,
                timeout=_SECONDS,
            )
            with netns.open_network(path) as namespace:
                for number in range(count):
                    progress.at("taps", number, count)
                    if stage is not None:
                        stage.quiet.wait()
                    _take(namespace, first, further)
        except (OSError, UnikeelError, subprocess.SubprocessError) as error:
            first.fail(str(error))
        finally:
            netns.unmake(path)


def _take(namespace: OwnedFd, first: Series, further: Series) -> None:
    with ExitStack() as stack:
        for series, wanted in (
            (first, tap.Wanted(tap.name_of("first"))),
            (further, tap.Wanted(tap.name_of("further"), ports=parse_forwarded("8080,53/udp"))),
        ):
            begun = time.perf_counter_ns()
            tap.attach(namespace, wanted, "", stack)
            series.add((time.perf_counter_ns() - begun) / 1e6)
    tap.sweep(namespace)
