"""The OCI runtime configuration of a sandbox: a pure function of what is to run and the limits.

What a monitor gets: its plan's read-only binds of the host, the device nodes it names, the descriptors it inherits, a user of its own
without capabilities, private namespaces, and limits of memory, CPU and processes. Format: runtime-spec 1.0 (config.md, config-linux.md).
"""

from __future__ import annotations

import os

from unikeel.lean import Final
from unikeel.model.plan import LaunchPlan
from unikeel.sandbox.root import destination
from unikeel.sandbox.seccomp import profile
from unikeel.values import NamedTuple

_PERIOD_US: Final = 100_000
_PROCESSES: Final = 512
_READ_ONLY: Final = ["bind", "ro", "nosuid", "nodev"]
_CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")


class SandboxRequest(NamedTuple):
    """What a sandbox is made of. ``uid`` is also the gid; ``allowance`` is bytes for the monitor beyond the guest's RAM.

    ``capabilities`` and ``files`` (the most open ones; 0: as the keeper's) are for a file server; a monitor has none.
    """

    ident: str
    plan: LaunchPlan
    root: str
    cgroup: str
    uid: int
    vcpus: int
    allowance: int
    #: The path of the network namespace that the monitor joins; empty: it has a new one.
    network: str = ""
    capabilities: tuple[str, ...] = ()
    files: int = 0
    #: Block devices (major, minor) among its descriptors that the monitor opens anew.
    blocks: tuple[tuple[int, int], ...] = ()


def memory_limit(request: SandboxRequest) -> int:
    """The cgroup's limit in bytes: the guest's RAM and the stated allowance for the monitor."""
    return (request.plan.memory_mib << 20) + request.allowance


def build(request: SandboxRequest) -> dict[str, object]:
    """The content of ``config.json``."""
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": request.root, "readonly": True},
        "process": _process(request),
        "mounts": _mounts(request),
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": request.network} if request.network else {"type": "network"},
            ],
            "cgroupsPath": request.cgroup,
            "rootfsPropagation": "private",
            "devices": _devices(request),
            "resources": _resources(request),
            "seccomp": profile(request.plan.syscalls),
            "maskedPaths": [
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/acpi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _process(request: SandboxRequest) -> dict[str, object]:
    sets = {name: list(request.capabilities) for name in _CAPABILITY_SETS}
    if request.capabilities:
        sets["ambient"] = sets["inheritable"] = []
    files = [{"type": "RLIMIT_NOFILE", "hard": request.files, "soft": request.files}] if request.files else []
    return {
        "terminal": False,
        "user": {"uid": request.uid, "gid": request.uid},
        "args": list(request.plan.argv),
        "env": ["PATH=/usr/bin", "HOME=/", *request.plan.environment],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": sets,
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}, *files],
    }


def _mounts(request: SandboxRequest) -> list[dict[str, object]]:
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            # Read-only for uid 0, too, which would own it.
            "options": ["ro", "nosuid", "noexec", "mode=755", "size=64k"],
        },
    ]
    if request.plan.scratch:
        options = ["rw", "nosuid", "nodev", "mode=700", f"uid={request.uid}", f"gid={request.uid}"]
        options.append(f"size={request.plan.scratch}")
        mounts.append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options})  # noqa: S108 - in the sandbox
    mounts += [
        {"destination": destination(path), "type": "bind", "source": path, "options": _READ_ONLY}
        for path in request.plan.binds
    ]
    return mounts


def _device_numbers(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return "c", os.major(status.st_rdev), os.minor(status.st_rdev)


def _devices(request: SandboxRequest) -> list[dict[str, object]]:
    devices = []
    for path in request.plan.devices:
        kind, major, minor = _device_numbers(path)
        devices.append(
            {
                "path": path,
                "type": kind,
                "major": major,
                "minor": minor,
                "fileMode": 0o600,
                "uid": request.uid,
                "gid": request.uid,
            }
        )
    return list(devices)


def _resources(request: SandboxRequest) -> dict[str, object]:
    rules: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    for path in request.plan.devices:
        kind, major, minor = _device_numbers(path)
        rules.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": "rw"})
    for major, minor in request.blocks:
        rules.append({"allow": True, "type": "b", "major": major, "minor": minor, "access": "rw"})
    return {
        "memory": {"limit": memory_limit(request)},
        "cpu": {"quota": _PERIOD_US * (request.vcpus + 1), "period": _PERIOD_US, "shares": 1024 * request.vcpus},
        "pids": {"limit": _PROCESSES},
        "devices": rules,
    }
