"""A task's statistics, from its sandbox's cgroup, in the form that containerd has for the host's version of cgroups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from unikeel.containerd.wire import metrics_v1_pb2, metrics_v2_pb2
from unikeel.sandbox.cgroups import UNIFIED, number, numbers, read
from unikeel.values import NamedTuple

_UNLIMITED: Final = (1 << 64) - 1
_TICK_NS: Final = 10_000_000
#: What the kernel calls otherwise than the message.
_RENAMED: Final = {
    "anon_thp": "anon_thp",
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    "hierarchical_memory_limit": "hierarchical_memory_limit",
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
    "workingset_refault": "workingset_refault_file",
    "workingset_activate": "workingset_activate_file",
}


class _Io(NamedTuple):
    """A line of the first version's block statistics."""

    major: int
    minor: int
    op: str
    value: int


def stats(cgroups: Mapping[str, str]) -> Any:
    """The statistics as containerd takes them; with nothing in them if the cgroup is gone."""
    metrics: Message
    if UNIFIED in cgroups:
        name, metrics = "io.containerd.cgroups.v2.Metrics", second(cgroups[UNIFIED])
    else:
        name, metrics = "io.containerd.cgroups.v1.Metrics", first(cgroups)
    return Any(type_url=name, value=metrics.SerializeToString())


def _fill(message: Message, values: Mapping[str, int]) -> None:
    """Set every number of a message that the kernel has one for, by its name, or by the one in :data:`_RENAMED`."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            plain = field.name.removeprefix("total_")
            renamed = ("total_" if plain != field.name else "") + _RENAMED.get(plain, plain)
            value = values.get(field.name, values.get(renamed))
            if value is not None:
                setattr(message, field.name, min(value, _UNLIMITED))


def second(directory: str) -> metrics_v2_pb2.Metrics:
    """Of a cgroup of the second version."""
    metrics = metrics_v2_pb2.Metrics()
    metrics.pids.current = number(read(directory, "pids.current"))
    metrics.pids.limit = number(read(directory, "pids.max"))
    _fill(metrics.cpu, numbers(read(directory, "cpu.stat")))
    memory = metrics.memory
    _fill(memory, numbers(read(directory, "memory.stat")))
    memory.usage = number(read(directory, "memory.current"))
    memory.usage_limit = number(read(directory, "memory.max"), _UNLIMITED)
    memory.swap_usage = number(read(directory, "memory.swap.current"))
    memory.swap_limit = number(read(directory, "memory.swap.max"), _UNLIMITED)
    memory.max_usage = number(read(directory, "memory.peak"))
    _fill(metrics.memory_events, numbers(read(directory, "memory.events")))
    for line in read(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if major.isdigit() and minor.isdigit():
            entry = metrics.io.usage.add(major=int(major), minor=int(minor))
            _fill(entry, {name: number(values.get(name, "")) for name in ("rbytes", "wbytes", "rios", "wios")})
    return metrics


def first(cgroups: Mapping[str, str]) -> metrics_v1_pb2.Metrics:
    """Of cgroups of the first version."""
    metrics = metrics_v1_pb2.Metrics()
    if "pids" in cgroups:
        metrics.pids.current = number(read(cgroups["pids"], "pids.current"))
        metrics.pids.limit = number(read(cgroups["pids"], "pids.max"))
    if "cpuacct" in cgroups:
        _usage(metrics.cpu.usage, cgroups["cpuacct"])
    if "cpu" in cgroups:
        values = numbers(read(cgroups["cpu"], "cpu.stat"))
        metrics.cpu.throttling.periods = values.get("nr_periods", 0)
        metrics.cpu.throttling.throttled_periods = values.get("nr_throttled", 0)
        metrics.cpu.throttling.throttled_time = values.get("throttled_time", 0)
    if "memory" in cgroups:
        _memory(metrics, cgroups["memory"])
    if "blkio" in cgroups:
        for field, name in (
            (metrics.blkio.io_service_bytes_recursive, "blkio.throttle.io_service_bytes_recursive"),
            (metrics.blkio.io_serviced_recursive, "blkio.throttle.io_serviced_recursive"),
        ):
            for entry in _entries(read(cgroups["blkio"], name)):
                field.add(op=entry.op, major=entry.major, minor=entry.minor, value=entry.value)
    return metrics


def _usage(usage: metrics_v1_pb2.CPUUsage, directory: str) -> None:
    usage.total = number(read(directory, "cpuacct.usage"))
    split = numbers(read(directory, "cpuacct.stat"))
    usage.user = split.get("user", 0) * _TICK_NS
    usage.kernel = split.get("system", 0) * _TICK_NS
    usage.per_cpu.extend(int(word) for word in read(directory, "cpuacct.usage_percpu").split() if word.isdigit())


def _memory(metrics: metrics_v1_pb2.Metrics, directory: str) -> None:
    _fill(metrics.memory, numbers(read(directory, "memory.stat")))
    for entry, prefix in (
        (metrics.memory.usage, "memory"),
        (metrics.memory.swap, "memory.memsw"),
        (metrics.memory.kernel, "memory.kmem"),
        (metrics.memory.kernel_tcp, "memory.kmem.tcp"),
    ):
        entry.usage = number(read(directory, f"{prefix}.usage_in_bytes"))
        entry.limit = number(read(directory, f"{prefix}.limit_in_bytes"))
        entry.max = number(read(directory, f"{prefix}.max_usage_in_bytes"))
        entry.failcnt = number(read(directory, f"{prefix}.failcnt"))
    _fill(metrics.memory_oom_control, numbers(read(directory, "memory.oom_control")))


def _entries(text: str) -> Iterator[_Io]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            major, _, minor = words[0].partition(":")
            if major.isdigit() and minor.isdigit():
                yield _Io(int(major), int(minor), words[1], int(words[2]))
