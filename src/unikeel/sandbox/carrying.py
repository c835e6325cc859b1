"""What of a caller's OCI configuration carries over into a sandbox's: a pure function of both.

The sandbox's own configuration (:mod:`.spec`) is the ground: its root, mounts, devices, capabilities and seccomp profile are for one monitor and are never
the caller's. Carried over are the place in the cgroup tree and the CPU limits, the namespaces that a pod shares, hooks, resource limits, the score of
the OOM killer, a user that is not root, and annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unikeel.lean import Any, Final
from unikeel.values import NamedTuple

#: Our own limit stays whatever the caller says: a core dump would hold the guest's memory.
_OURS: Final = frozenset({"RLIMIT_CORE"})


class Carried(NamedTuple):
    """What is carried over. ``namespaces`` are paths by type; ``memory_limit`` is the guest's, in bytes, 0: none."""

    cgroup: str = ""
    namespaces: Mapping[str, str] = {}
    hooks: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    rlimits: Sequence[Mapping[str, Any]] = ()
    oom_score_adj: int | None = None
    groups: Sequence[int] = ()
    cpu: Mapping[str, Any] = {}
    annotations: Mapping[str, str] = {}


def is_systemd(cgroup: str) -> bool:
    """Whether a cgroup's path is one for systemd: ``slice:prefix:name``."""
    return cgroup.count(":") == 2


def carry(built: Mapping[str, Any], carried: Carried) -> dict[str, Any]:
    """A sandbox's configuration with what is carried over; ``built`` stays as it is."""
    process = dict(built["process"])
    linux = dict(built["linux"])
    result = {**built, "process": process, "linux": linux}
    if carried.cgroup:
        linux["cgroupsPath"] = carried.cgroup
    linux["namespaces"] = [
        {"type": entry["type"], "path": carried.namespaces[entry["type"]]}
        if entry["type"] in carried.namespaces
        else entry
        for entry in linux["namespaces"]
    ]
    if "uts" in carried.namespaces:
        result.pop("hostname", None)  # it is the pod's
    if carried.hooks:
        result["hooks"] = {name: list(hooks) for name, hooks in carried.hooks.items()}
    process["rlimits"] = [*process["rlimits"], *(item for item in carried.rlimits if item.get("type") not in _OURS)]
    if carried.oom_score_adj is not None:
        process["oomScoreAdj"] = carried.oom_score_adj
    if carried.groups:
        process["user"] = {**process["user"], "additionalGids": list(carried.groups)}
    if carried.cpu:
        resources = dict(linux["resources"])
        resources["cpu"] = _cpu(resources["cpu"], carried.cpu)
        linux["resources"] = resources
    if carried.annotations:
        result["annotations"] = dict(carried.annotations)
    return result


def _cpu(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's limits; a quota only together with its period."""
    merged = {**ours, **{key: value for key, value in theirs.items() if key not in ("quota", "period")}}
    quota = theirs.get("quota")
    if isinstance(quota, int) and quota > 0:
        merged["quota"] = quota
        merged["period"] = theirs.get("period") or 100_000
    return merged
