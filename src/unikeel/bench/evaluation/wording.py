"""Numbers and series as words. Pure."""

from __future__ import annotations

import math
from typing import Final

from unikeel.bench.campaign.results import Series
from unikeel.bench.inference import LEVEL, Difference, Interval
from unikeel.bench.rows import Key

#: Metric → what it is, for those who do not know the code.
METRICS: Final = {
    "ready": "from the command to the guest's reply",
    "ready_last": "from the beginning of all to the last guest's reply",
    "ready_gap": "between the first and the last guest's reply",
    "exec": "from the command to the monitor's execution",
    "acquire": "from the known image to open boot files",
    "prepare": "making a writable snapshot",
    "identify": "from a container's name to its image's snapshot",
    "identify_acquire": "from a container's name to open boot files",
    "mount": "the mount of a view",
    "prepare_last": "from the beginning of all to the last Prepare's answer",
    "prepare_gap": "between the first and the last Prepare's answer",
    "view_mount": "one view through containerd, and its mount",
    "import": "the command's interpreter and code",
    "commit": "making a writable snapshot an immutable one",
    "flushes": "flushes to the disk of one call",
    "remove": "taking it away again",
    "written": "bytes written to disks",
    "view": "making a read-only view",
    "view_first": "making the first view of a snapshot",
    "host": "memory beside the monitor, for each container",
    "monitor": "a monitor's own memory",
    "guest": "a guest's memory",
    "boot_copies": "of the monitor's and the guest's memory, private copies of boot files, which no sharing can save",
    "cached": "page cache of kept boot files, for each container",
    "slab": "the kernel's own memory, for each container",
    "siblings_cpu": "processor time that all idle siblings take together",
    "task_create": "containerd's answer to a create",
    "task_start": "containerd's answer to a start",
    "task_create_start": "containerd's answers to create and start",
}


#: Questions in which a Prepare is a snapshotter's.
_OF_SNAPSHOTTERS: Final = ("prepare", "base-size", "durability", "burst", "")


def what(metric: str, question: str = "") -> str:
    """What a metric is; ``prepare`` of a start is another thing than of a snapshotter."""
    if metric == "prepare" and question not in _OF_SNAPSHOTTERS:
        return "what a new command pays once before its boot files"
    return METRICS.get(metric, metric.replace("_", " "))


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """With three significant digits or so; ∞ for what lies among failures."""
    if math.isinf(value):
        return "∞"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def interval(found: Interval | None) -> str:
    """In brackets; open above where only a lower bound is known. Empty if there is none."""
    if found is None:
        return ""
    return f"[{number(found.low)}, {number(found.high)}{')' if math.isinf(found.high) else ']'}"


def p_value(p: float) -> str:
    """A chance, as papers write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def series(key: Key) -> str:
    """A series by name, without its strategy."""
    parts = [key.metric.replace("_", " "), f"of {key.image}" if key.image else "", f"({key.scenario})"]
    parts += [
        f"with {key.siblings} siblings" if key.siblings else "",
        f"{key.concurrency} at once" if (key.concurrency or 1) > 1 else "",
    ]
    parts.append(f"on {key.snapshotter}" if key.snapshotter not in (None, "file") else "")
    return " ".join(part for part in parts if part)


def difference(first: Series, second: Series, found: Difference) -> str:
    """Two series compared, one sentence. Nothing is called a difference that is not significant."""
    one, other = _apart(first.key, second.key)
    about = series(
        second.key if first.key.snapshotter == second.key.snapshotter else second.key._replace(snapshotter=None)
    )
    if not found.significant:
        return f"{about}: no significant difference between {one} and {other} ({p_value(found.p)})."
    quicker, slower = (one, other) if found.direction < 0 else (other, one)
    ratio, span = found.ratio, found.interval
    if ratio is None:
        return f"{about}: less by {quicker} than by {slower} ({p_value(found.p)})."
    if found.direction > 0 and ratio:
        ratio, span = (
            1 / ratio,
            None
            if span is None
            else Interval(1 / span.high if span.high else math.inf, 1 / span.low if span.low else math.inf),
        )
    return f"{about}: {slower} takes {number(ratio)} {interval(span)} times as much as {quicker} ({p_value(found.p)})."


def undecided(first: Series, second: Series, found: Difference) -> str:
    """Two series between which nothing is known to differ, for a list of such."""
    one, other = _apart(first.key, second.key)
    return f"{one} and {other} ({p_value(found.p)})"


def _apart(first: Key, second: Key) -> tuple[str, str]:
    """What two series differ in."""
    if first.runtime != second.runtime:
        return _running(first), _running(second)
    if first.strategy != second.strategy:
        return f"`{first.strategy}`", f"`{second.strategy}`"
    if first.snapshotter != second.snapshotter:
        return f"{first.snapshotter}", f"{second.snapshotter}"
    by = f" by `{first.strategy}`" if first.strategy else ""
    if first.scenario != second.scenario:
        return f"{first.scenario}{by}", f"{second.scenario}{by}"
    if first.siblings != second.siblings:
        return f"{first.siblings} siblings{by}", f"{second.siblings} siblings{by}"
    return f"{first.image}{by}", f"{second.image}{by}"


def _running(key: Key) -> str:
    """What runs, and under which runtime."""
    by = f" by `{key.strategy}`" if key.strategy else ""
    return f"{key.image} under {(key.runtime or '').removeprefix('io.containerd.')}{by}"


def change(one: Series, found: Difference) -> str:
    """The same series in two results."""
    by = f" by `{one.key.strategy}`" if one.key.strategy else ""
    ratio = "" if found.ratio is None else f"{number(found.ratio)} {interval(found.interval)} times what it was, "
    more = "more" if found.direction < 0 else "less"
    return f"{series(one.key)}{by}: {more}; {ratio}{p_value(found.p)}."


LEVEL_WORDS: Final = f"{LEVEL:.0%}"
