"""The OCI runtime specification of a container, made of its image's configuration.

As containerd's own client makes it where nothing else is asked for (OCI runtime-spec 1.0.2, config.md and config-linux.md;
the defaults of ``ctr run`` looked at in its output): a root beside the file, its own namespaces, 14 capabilities, the
usual mounts, and the control group ``/<namespace>/<container>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from unikeel.containerd.records import Packed
from unikeel.errors import InvalidArgument
from unikeel.images.manifests import Image
from unikeel.values import NamedTuple

#: The type of a specification in a container's record.
SPEC: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
#: The type of a process's specification, as an exec has it.
PROCESS: Final = "types.containerd.io/opencontainers/runtime-spec/1/Process"

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES: Final = [
    f"CAP_{name}"
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
]
_MOUNTS: Final = (
    ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),  # noqa: S108 - inside of the container
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/run", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
)
_MASKED: Final = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi"
_READ_ONLY: Final = "bus fs irq sys sysrq-trigger"
_IDS: Final = 1 << 32


class Process(NamedTuple):
    """What a container's process shall be, where it differs from the image's configuration.

    ``args`` stand in place of the image's command (its entry point stays), ``env`` is added to its environment, ``user`` is
    ``UID[:GID]``; empty means the image's.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    terminal: bool = False


def process(image: Image, wanted: Process) -> dict[str, object]:
    """The process that an image runs.

    :raise InvalidArgument: neither image nor caller name a program, or the user is a name: that would need the image's files.
    """
    args = [*image.entrypoint, *(wanted.args or image.cmd)]
    if not args:
        raise InvalidArgument(f"the image {image.name} names no program to run", "give arguments")
    env = [*image.env]
    if not any(entry.startswith("PATH=") for entry in env):
        env.insert(0, _PATH)
    if wanted.terminal:
        env.append("TERM=xterm")
    uid, gid = _user(wanted.user or image.user, image.name)
    return {
        "terminal": wanted.terminal,
        "user": {"uid": uid, "gid": gid},
        "args": args,
        "env": _environment([*env, *wanted.env]),
        "cwd": wanted.cwd or image.workdir or "/",
        "noNewPrivileges": True,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
    }


def spec(
    namespace: str,
    container: str,
    running: Mapping[str, object],
    *,
    annotations: Mapping[str, str] | None = None,
    mounts: Sequence[Mapping[str, object]] = (),
    host_network: bool = False,
) -> dict[str, object]:
    """A container's specification.

    :param running: what :func:`process` gives. :param mounts: further mounts, as the specification has them.
    :param host_network: no network namespace of its own.
    """
    namespaces = ["pid", "ipc", "uts", "mount"] + ([] if host_network else ["network"])
    return {
        "ociVersion": "1.0.2",
        "process": running,
        "root": {"path": "rootfs"},
        "mounts": [
            *(
                {"destination": target, "type": kind, "source": source, "options": options.split(",")}
                for target, kind, source, options in _MOUNTS
            ),
            *mounts,
        ],
        "annotations": dict(annotations or {}),
        "linux": {
            "cgroupsPath": f"/{namespace}/{container}",
            "namespaces": [{"type": kind} for kind in namespaces],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": [*(f"/proc/{name}" for name in _MASKED.split()), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY.split()],
        },
    }


def packed(document: Mapping[str, object], kind: str = SPEC) -> Packed:
    """A specification as containerd takes it."""
    return Packed(kind, json.dumps(document, separators=(",", ":")).encode())


def _user(text: str, image: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    found = []
    for name in (user, group):
        if name in ("", "root"):
            found.append(0)
        elif name.isascii() and name.isdigit() and int(name) < _IDS - 1:
            found.append(int(name))
        else:
            raise InvalidArgument(
                f"the user {text[:100]!r} of {image} is not given in numbers", "give one as UID or UID:GID"
            )
    return found[0], found[1]


def _environment(entries: Sequence[str]) -> list[str]:
    """Of entries of one name the last, where the first was."""
    found: dict[str, str] = {}
    for entry in entries:
        found[entry.partition("=")[0]] = entry
    return list(found.values())
