"""A caller's OCI configuration: what of a bundle's ``config.json`` matters for a guest, read as the foreign input that it is.

Bounded in size, every value looked at: whatever is not as the runtime specification has it is refused with a sentence that names the field.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from unikeel.errors import InvalidArgument, NotFound
from unikeel.model.names import quote
from unikeel.model.volumes import Volume, checked
from unikeel.values import NamedTuple

#: The longest configuration that is read, in bytes.
LIMIT: Final = 4 << 20
_FILE: Final = "config.json"
_SMALL: Final = 64 << 10
#: Namespaces that a sandbox may share with others if the caller says with whom.
SHARED: Final = ("network", "ipc", "uts")
_HOOKS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_CPU: Final = ("shares", "quota", "period", "cpus", "mems")
#: File systems of the kernel's own, which a guest has of its kernel, and what a guest has of its own, as a container has of the host's.
_SYSTEM: Final = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"})
_OWN: Final = frozenset({"/dev", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup", "/run"})  # noqa: S108 - names
#: What runtimes mount into every container, whoever needs it: a guest is told its host name and name server otherwise, too.
_OPTIONAL: Final = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"})
_TOKENS: Final = ("/var/run/secrets/kubernetes.io/", "/run/secrets/kubernetes.io/")
#: File systems that a mount of a device, or of a file with the option ``loop``, may be of, so that a guest is given the disk.
_DISKS: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "erofs", "squashfs"})
#: Devices that the runtime specification gives to every container, and what stands in for a terminal; a guest has those of its own.
_EVERYBODY_S: Final = frozenset(
    {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx"}
)
_RULES: Final = "linux.resources.devices"
#: The largest major or minor number that Linux has (dev_t is 32 bits wide, 20 of them the minor one).
_MOST_NUMBER: Final = (1 << 20) - 1
_MOUNTED: Final = _SYSTEM | _DISKS
_TYPE_KEY: Final = "io.kubernetes.cri.container-type"


class _Mount(NamedTuple):
    """An entry of ``mounts``."""

    target: str
    kind: str
    source: str
    is_bind: bool
    read_only: bool


class Spec(NamedTuple):
    """What a caller's configuration says.

    ``namespaces`` are paths by type, of those to join; ``apart`` tells whether it has a network namespace at all, joined or of its own, so that the host's is
    not meant; ``resolv_conf`` is the file that is mounted as such. ``volumes`` are the bind mounts and file systems on disks; ``unmounted`` are other mounts, ``TYPE at DESTINATION``
    each, that no guest has by itself, ``devices`` the paths of such devices, ``blocks`` those of them that are block devices that the container was given by name. ``memory_limit`` is in bytes, 0: none; ``cpu`` has the runtime specification's keys.
    """

    annotations: Mapping[str, str] = {}
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    hostname: str = ""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    rlimits: tuple[Mapping[str, Any], ...] = ()
    oom_score_adj: int | None = None
    cgroup: str = ""
    namespaces: Mapping[str, str] = {}
    hooks: Mapping[str, list[Mapping[str, Any]]] = {}
    memory_limit: int = 0
    cpu: Mapping[str, Any] = {}
    read_only: bool = False
    apart: bool = False
    resolv_conf: str = ""
    workdir: str = "/"
    volumes: tuple[Volume, ...] = ()
    unmounted: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    blocks: tuple[Volume, ...] = ()

    @property
    def is_pod_sandbox(self) -> bool:
        """Whether it is the pause container of a pod."""
        return self.annotations.get(_TYPE_KEY) == "sandbox"


def is_small(bundle: str) -> bool:
    """Whether a bundle's configuration is read in less time than it takes to hand that over to another thread."""
    try:
        info = os.lstat(os.path.join(bundle, _FILE))
    except OSError:
        return True
    return stat.S_ISREG(info.st_mode) and info.st_size <= _SMALL


def read(bundle: str) -> Spec:
    """The configuration of a bundle. :raise NotFound: there is none. :raise InvalidArgument: it is not one."""
    return parse(_text_of(bundle))


def load(bundle: str) -> dict[str, Any]:
    """The configuration of a bundle as it is written. :raise NotFound: there is none. :raise InvalidArgument: it is not an object."""
    return _document(_text_of(bundle))


def _text_of(bundle: str) -> bytes:
    path = os.path.join(bundle, _FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(f"the bundle {bundle} has no {_FILE}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidArgument(f"{path} is not a regular file")
        if info.st_size > LIMIT:
            raise InvalidArgument(f"{path} has more than {LIMIT} bytes")
        return os.read(fd, info.st_size)
    finally:
        os.close(fd)


def parse(data: bytes) -> Spec:
    """A configuration from its text. :raise InvalidArgument: it is not one."""
    top = _document(data)
    process = _object(top.get("process"), "process")
    user = _object(process.get("user"), "process.user")
    linux = _object(top.get("linux"), "linux")
    resources = _object(linux.get("resources"), "linux.resources")
    score = process.get("oomScoreAdj")
    mounts = _mounts(top.get("mounts"))
    return Spec(
        annotations=_texts(top.get("annotations"), "annotations"),
        args=_strings(process.get("args"), "process.args"),
        env=_strings(process.get("env"), "process.env"),
        workdir=_text(process.get("cwd"), "process.cwd") or "/",
        hostname=_text(top.get("hostname"), "hostname"),
        uid=_number(user.get("uid"), "process.user.uid"),
        gid=_number(user.get("gid"), "process.user.gid"),
        groups=tuple(
            _number(item, "process.user.additionalGids")
            for item in _list(user.get("additionalGids"), "process.user.additionalGids")
        ),
        rlimits=tuple(_object(item, "process.rlimits") for item in _list(process.get("rlimits"), "process.rlimits")),
        oom_score_adj=None if score is None else _number(score, "process.oomScoreAdj", least=-1000),
        cgroup=_cgroup(linux.get("cgroupsPath")),
        namespaces=_namespaces(linux.get("namespaces")),
        hooks=_hooks(top.get("hooks")),
        memory_limit=_memory(resources),
        cpu={
            key: value
            for key, value in _object(resources.get("cpu"), "linux.resources.cpu").items()
            if key in _CPU and value is not None
        },
        read_only=_object(top.get("root"), "root").get("readonly") is True,
        apart=any(
            _object(item, "linux.namespaces").get("type") == "network"
            for item in _list(linux.get("namespaces"), "linux.namespaces")
        ),
        resolv_conf=_resolv_conf(mounts),
        volumes=tuple(_volumes(mounts)),
        unmounted=tuple(_unmounted(mounts)),
        devices=tuple(_devices(linux.get("devices"))),
        blocks=tuple(_blocks(linux.get("devices"), resources.get("devices"))),
    )


def _document(data: bytes) -> dict[str, Any]:
    try:
        root = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{_FILE} is not JSON: {str(error)[:200]}") from None
    return _object(root, "the whole")


def _memory(resources: Mapping[str, Any]) -> int:
    limit = _object(resources.get("memory"), "linux.resources.memory").get("limit")
    return max(0, _number(limit, "linux.resources.memory.limit", least=-1))


def _cgroup(value: object) -> str:
    """A cgroup's path, or ``slice:prefix:name`` for systemd. What climbs up, or is no name, is refused."""
    text = _text(value, "linux.cgroupsPath")
    if ".." in text.replace(":", "/").split("/") or not text.isprintable():
        raise InvalidArgument(f"linux.cgroupsPath is {quote(text)}, which is no path of a cgroup")
    return text


def _namespaces(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in _list(value, "linux.namespaces"):
        entry = _object(item, "linux.namespaces")
        kind = _text(entry.get("type"), "linux.namespaces.type")
        path = _text(entry.get("path"), "linux.namespaces.path")
        if path and kind in SHARED:
            if not path.startswith("/"):
                raise InvalidArgument(f"the {kind} namespace's path is {quote(path)}, which is not absolute")
            found[kind] = path
    return found


def _mounts(value: object) -> list[_Mount]:
    found = []
    for item in _list(value, "mounts"):
        mount = _object(item, "mounts")
        target, kind = _text(mount.get("destination"), "mounts.destination"), _text(mount.get("type"), "mounts.type")
        options = _strings(mount.get("options"), "mounts.options")
        is_bind = kind in ("bind", "rbind") or "bind" in options or "rbind" in options
        found.append(_Mount(target, kind, _text(mount.get("source"), "mounts.source"), is_bind, "ro" in options))
    return found


def _resolv_conf(mounts: Iterable[_Mount]) -> str:
    """The file that is bound over ``/etc/resolv.conf``; empty: none is."""
    found = ""
    for mount in mounts:
        if mount.target == "/etc/resolv.conf":
            found = mount.source
    return found if found.startswith("/") else ""


def _volumes(mounts: Iterable[_Mount]) -> Iterator[Volume]:
    """The bind mounts; what a guest has of its own is none. :raise InvalidArgument: one cannot be a volume."""
    for target, kind, source, is_bind, read_only in mounts:
        is_disk = not is_bind and kind in _DISKS
        if not (is_bind or is_disk) or target in _OWN:
            continue
        if not source.startswith("/"):
            raise InvalidArgument(
                f"{_FILE}: the mount at {quote(target)} has the source {quote(source)}, which is no absolute path"
            )
        is_optional = target in _OPTIONAL or target.startswith(_TOKENS)
        yield checked(Volume(source, target, read_only, is_optional, is_disk))


def _unmounted(mounts: Iterable[_Mount]) -> Iterator[str]:
    """The mounts that are neither bind mounts nor what every guest has."""
    for target, kind, _, is_bind, _ in mounts:
        if not is_bind and kind not in _MOUNTED and target not in _OWN and not target.startswith("/dev/"):
            yield f"{kind} at {target}"


def _devices(value: object) -> Iterator[str]:
    """The devices that not every guest has."""
    for item in _list(value, "linux.devices"):
        path = _text(_object(item, "linux.devices").get("path"), "linux.devices.path")
        if path not in _EVERYBODY_S:
            yield path


def _blocks(devices: object, rules: object) -> Iterator[Volume]:
    """The block devices of a container that may not use just any: one that may is privileged, and has all of the host's, which are the host's own."""
    allowed = [rule for item in _list(rules, _RULES) if (rule := _object(item, _RULES)).get("allow") is True]
    if any(rule.get("type") in (None, "", "a") and rule.get("major") is None for rule in allowed):
        return
    for item in _list(devices, "linux.devices"):
        device = _object(item, "linux.devices")
        path = _text(device.get("path"), "linux.devices.path")
        if device.get("type") != "b" or path in _EVERYBODY_S:
            continue
        major, minor = (_number(device.get(key), f"linux.devices.{key}") for key in ("major", "minor"))
        if max(major, minor) > _MOST_NUMBER:
            raise InvalidArgument(
                f"{_FILE}: linux.devices has {quote(path)} with the number {major}:{minor}, which is none"
            )
        written = any("w" in _text(rule.get("access"), _RULES) for rule in allowed if _is_for(rule, major, minor))
        yield checked(Volume(path, path, not written, disk=True, number=os.makedev(major, minor)))


def _is_for(rule: Mapping[str, Any], major: int, minor: int) -> bool:
    """Whether a rule is for a block device; without a number it is for all."""
    return rule.get("type") == "b" and rule.get("major") in (None, -1, major) and rule.get("minor") in (None, -1, minor)


def _hooks(value: object) -> dict[str, list[Mapping[str, Any]]]:
    given = _object(value, "hooks")
    return {
        name: [_object(hook, f"hooks.{name}") for hook in _list(given[name], f"hooks.{name}")]
        for name in _HOOKS
        if given.get(name)
    }


def _object(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{_FILE}: {what} is not an object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgument(f"{_FILE}: {what} is not a list")
    return value


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise InvalidArgument(f"{_FILE}: {what} is not a text")
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    found = tuple(_list(value, what))
    for item in found:
        if not isinstance(item, str) or "\0" in item:
            return tuple(_text(each, what) for each in found)
    return found


def _texts(value: object, what: str) -> dict[str, str]:
    found = _object(value, what)
    for key, item in found.items():
        if not isinstance(item, str) or "\0" in item:
            found[key] = _text(item, f"{what}[{quote(key)}]")
    return found


def _number(value: object, what: str, least: int = 0) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 63:
        raise InvalidArgument(f"{_FILE}: {what} is not a number that could be meant")
    return value
