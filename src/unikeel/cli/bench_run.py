"""``unikeel bench run``: measure, or go on measuring."""

from __future__ import annotations

import os

from unikeel.cli.failures import say
from unikeel.cli.options import DIRECTORIES, FILES, Argument, Command, Option, Parsed
from unikeel.cli.output import line
from unikeel.errors import InvalidArgument, PermissionDenied
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

_INTERRUPTED = 130
COMMAND = Command(
    "bench run",
    "measure what starts cost here, and keep every sample",
    options=(
        Option(("--campaign",), "which campaign: laptop, lab, hardware, or the path of a file (laptop)", "NAME|FILE", complete=FILES),
        Option(("--output",), "where the samples go, and are continued (build/bench/CAMPAIGN.jsonl)", "FILE", complete=FILES),
        Option(("--samples",), "how many of each series, instead of the campaign's", "N"),
        Option(("--world",), "now only in these worlds of the campaign: embedded, containerd, devmapper, containerd:devmapper, and so on", "NAME"),
        Option(("--minutes",), "end after so many minutes, to be continued by the same command", "N"),
        Option(("--patience",), "wait for a quiet host before each block, so many seconds on average", "S"),
        Option(("--sample-images",), "what `make samples` filled (build/samples)", "DIR", complete=DIRECTORIES),
        Option(("--state-parent",), "make the state root that is measured in DIR, on disk (/var/tmp)", "DIR", complete=DIRECTORIES),
    ),
    arguments=(Argument("SCENARIO", "only these; all of the campaign's if none is named", 0, None),),
    examples=(
        ("unikeel bench run", "the laptop campaign"),
        ("unikeel bench run --campaign lab --minutes 4", "some of the lab campaign; again for more"),
        ("unikeel bench run --campaign lab --world containerd:erofs", "what the lab campaign has for that world; the rest another time"),
        ("unikeel bench run sequential boot-size --samples 100 --output mine.jsonl", "two scenarios, more samples"),
    ),
    details="It is interrupted by Ctrl-C and continued by the same command: what was measured is on disk, and is never measured twice but for "
    "the block that was under way. Exit status 0: everything was measured, whatever came out; 1: a part could not be run; 130: there is more to do.",
)  # fmt: skip


def run(parsed: Parsed, session: Session) -> int:
    """Measure."""
    del session
    from unikeel.bench.campaign import plan, worlds
    from unikeel.bench.campaign.journal import Journal
    from unikeel.bench.campaign.running import run as measured
    from unikeel.bench.campaign.scenarios import SCENARIOS

    campaign = plan.load(parsed.text("campaign") or "laptop")
    for name in parsed.operands:
        if name not in SCENARIOS:
            raise InvalidArgument(f"there is no scenario {name}", f"known are {', '.join(SCENARIOS)}")
    campaign = campaign.only(frozenset(parsed.operands)) if parsed.operands else campaign
    campaign = campaign.taking(samples) if (samples := parsed.number("samples")) else campaign
    if os.geteuid() != 0:
        raise PermissionDenied("benchmarks mount, make loop devices and run monitors", "run them as root")
    settings = worlds.Settings(
        parsed.text("sample-images") or worlds.SAMPLES, parsed.text("state-parent") or worlds.PARENT
    )
    path = parsed.text("output") or os.path.join("build", "bench", f"{campaign.name}.jsonl")
    with Journal(path, campaign) as journal:
        ended = measured(
            campaign,
            journal,
            lambda blocks, opened: worlds.opened(blocks, opened, campaign, settings),
            patience=parsed.seconds("patience") or 0.0,
            minutes=parsed.number("minutes"),
            world=parsed.text("world"),
        )
    for notice in ended.notices:
        say(notice)
    if ended.left:
        line(f"{path}: {ended.left} blocks are left; the same command goes on")
        return 1 if ended.incomplete and not ended.interrupted else _INTERRUPTED
    line(f"{path}: complete; `unikeel bench report {path}` shows it")
    return 0
