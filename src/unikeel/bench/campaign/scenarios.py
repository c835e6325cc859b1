"""The scenarios of ``unikeel bench``: what each one does, which question it answers, and where it can run. Pure tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unikeel.values import NamedTuple

#: Where samples are taken: our own engine on this host; our runtime under containerd, in the lab; a snapshotter alone, in the lab.
EMBEDDED: Final = "embedded"
CONTAINERD: Final = "containerd"
SNAPSHOTTER: Final = "snapshotter"


class Scenario(NamedTuple):
    """One scenario.

    :ivar does: what a sample is. :ivar question: what it answers. :ivar levels: what the numbers of a cell mean; empty: it takes none.
    :ivar usual: the levels where a campaign names none. :ivar groups: where it runs → the groups of samples that it is there (under containerd,
    those of :mod:`unikeel.bench.containerd.plan` and :mod:`unikeel.bench.snapshotter.plan`). :ivar headline: the metrics that are compared.
    :ivar monitor: whether a sample starts a monitor. :ivar seconds: what a sample is guessed to take.
    """

    does: str
    question: str
    levels: str
    usual: tuple[int, ...]
    groups: Mapping[str, tuple[str, ...]]
    headline: tuple[str, ...]
    monitor: bool = True
    seconds: float = 0.5


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "sequential": Scenario(
        "start by a command, wait for the guest's reply, stop, remove; repeated",
        "What does a start cost with each way to the boot files, step by step?",
        "", (), {EMBEDDED: ("sequential",), CONTAINERD: ("tasks",)},
        ("ready", "acquire", "exec", "task_create_start"), seconds=0.6,
    ),
    "siblings": Scenario(
        "the same while idle containers of the same image (or, with `beside`, of another one) run; their processor time is taken",
        "Do starts slow down or scatter while others run?",
        "idle containers", (0, 1, 5, 10, 30), {EMBEDDED: ("siblings",), CONTAINERD: ("siblings",)},
        ("ready", "task_create_start"), seconds=0.8,
    ),
    "burst": Scenario(
        "that many starts at once; each one's time counts from the beginning of all",
        "What happens when many start at once?",
        "starts at once", (1, 8, 32, 100), {EMBEDDED: ("burst",), CONTAINERD: ("crowd",), SNAPSHOTTER: ("crowd",)},
        ("ready", "ready_last", "task_create", "prepare_last"), seconds=2.0,
    ),
    "churn": Scenario(
        "starts at a steady rate, each one's time from the instant at which it was due, so that a jam is not hidden by waiting for it",
        "Does a steady rate of starts hold?",
        "starts in a minute", (60,), {EMBEDDED: ("churn",)}, ("ready",), seconds=15.0,
    ),
    "image-size": Scenario(
        "acquire the boot files of images of that many megabytes, with the same boot files; no monitor",
        "Does the image's size matter?",
        "megabytes of the image", (50, 500, 2000), {EMBEDDED: ("acquire",)}, ("acquire",), monitor=False, seconds=0.35,
    ),
    "base-size": Scenario(
        "the snapshotter alone: a writable snapshot, and a view with its mount, of images that were unpacked with a base image of that many gigabytes (sparse)",
        "Does the size of the snapshotter's base image matter?",
        "gigabytes of the base image", (1, 10, 100), {CONTAINERD: ("base",)}, ("prepare", "view_mount"), monitor=False, seconds=1.5,
    ),
    "boot-size": Scenario(
        "acquire that many megabytes of boot files, of an image that was started before; no monitor",
        "When do shared views pay, and when does a cache?",
        "megabytes of boot files", (1, 8, 32, 128), {EMBEDDED: ("acquire",), CONTAINERD: ("warm",)},
        ("acquire", "identify_acquire", "view_mount"), monitor=False, seconds=0.35,
    ),
    "first": Scenario(
        "the same for the first container of an image: nothing is cached and nothing mounted",
        "What does the first start of an image pay?",
        "megabytes of boot files", (1, 8, 32, 128), {EMBEDDED: ("acquire",), CONTAINERD: ("first",)},
        ("acquire", "view_mount"), monitor=False, seconds=0.4,
    ),
    "layers": Scenario(
        "acquire the boot files of an image that has them in the first, the middle or the last of its layers (`layers-20-middle`), for the first time: by a view of "
        "all of it, of that layer alone, and by the cache",
        "Does the number of layers matter, and does a view of the lowest layer that has the boot files help?",
        "", (), {CONTAINERD: ("layers",)}, ("acquire",), monitor=False, seconds=0.4,
    ),
    "cold": Scenario(
        "the same with the page cache dropped before each sample (of the whole host: nobody else should be at work)",
        "What does the first start pay when the image must come from the disk?",
        "megabytes of boot files", (32,), {EMBEDDED: ("acquire",)}, ("acquire",), monitor=False, seconds=0.6,
    ),
    "prepare": Scenario(
        "the snapshotter alone: a writable snapshot of an image",
        "What does the snapshotter cost by itself?",
        "", (), {EMBEDDED: ("snapshots",), SNAPSHOTTER: ("serial",)},
        ("prepare", "prepare_last"), monitor=False, seconds=0.05,
    ),
    "view": Scenario(
        "the snapshotter alone: a read-only view of an image, and its removal",
        "What does a view cost by itself?",
        "", (), {EMBEDDED: ("snapshots",), SNAPSHOTTER: ("serial",)}, ("view", "view_first"), monitor=False, seconds=0.05,
    ),
    "durability": Scenario(
        "a snapshot's Prepare, View, Commit and Remove, and a start, each with all flushes to the disk and, in turn, without any (in the benchmark's own processes alone)",
        "What does crash safety cost?",
        "", (), {EMBEDDED: ("durability",)}, ("prepare", "view", "commit", "remove", "ready"), seconds=1.3,
    ),
    "memory": Scenario(
        "that many idle containers of one image: what each holds",
        "What does each strategy cost in memory, and how much can sharing save?",
        "idle containers", (8,), {EMBEDDED: ("memory",), CONTAINERD: ("memory",)},
        ("host", "daemon_pss", "task_pss"), seconds=8.0,
    ),
    "writes": Scenario(
        "bytes written to disks by a start and the removal after it",
        "What does each strategy write?",
        "", (), {EMBEDDED: ("sequential",), SNAPSHOTTER: ("cost",)}, ("written", "metadata_bytes", "daemon_bytes"), seconds=0.6,
    ),
}  # fmt: skip
