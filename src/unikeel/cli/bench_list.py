"""``unikeel bench list``: what can be measured, and the campaigns that there are."""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Option, Parsed
from unikeel.cli.output import json, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "bench list",
    "list the scenarios that can be measured, and campaigns of them",
    options=(Option(("--campaign",), "list the cells of this campaign instead", "NAME|FILE"), JSON),
    examples=(("unikeel bench list --campaign laptop", "every series that the laptop campaign takes"),),
    details="JSON keys: scenarios (each: does, question, levels, where), campaigns (each: name, about, minutes, cells).",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print it."""
    from unikeel.bench.campaign import plan
    from unikeel.bench.campaign.scenarios import SCENARIOS

    del session
    chosen = parsed.text("campaign")
    campaigns = [plan.load(name) for name in ([chosen] if chosen else plan.names())]
    if parsed.flag("json"):
        json(
            {
                "scenarios": {
                    name: {"does": found.does, "question": found.question, "levels": found.levels, "where": list(found.groups)}
                    for name, found in SCENARIOS.items()
                },
                "campaigns": [
                    {"name": each.name, "about": each.about, "minutes": each.minutes, "cells": [cell.name for cell in each.cells]}
                    for each in campaigns
                ],
            }
        )  # fmt: skip
    elif chosen:
        for table in campaigns[0].tables:
            for cell in table.cells:
                line(f"{cell.name} (n = {table.samples})")
    else:
        for name, found in SCENARIOS.items():
            line(f"{name:<12} {found.question}")
            line(f"{'':<12} {found.does} ({', '.join(found.groups)})")
        line("")
        for each in campaigns:
            line(f"campaign {each.name:<10} about {each.minutes} min, {len(each.cells)} series: {each.about}")
    return 0
