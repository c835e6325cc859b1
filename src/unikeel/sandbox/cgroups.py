"""The cgroup of a sandbox that runs: where it is, freezing it, what its memory limit has killed, taking it away when it is empty.

Where the OCI runtime has put it is read from the process itself, since a caller's path means different things to different drivers. Directories
are kept by controller; on a host with cgroup2 alone there is one, under the empty name.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

from unikeel.lean import Final

ROOT: Final = "/sys/fs/cgroup"
#: The controller's name of the one directory of cgroup2.
UNIFIED: Final = ""
#: The first version of cgroups writes a number near 2 to the power of 63 for no limit.
_NO_LIMIT: Final = 1 << 60
_READ: Final = 256 << 10
_PREFIX: Final = "unikeel"
_FREEZE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.002
_SEEN: Final[set[tuple[str, str]]] = set()
_MOST_SEEN: Final = 1024


def is_unified() -> bool:
    """Whether the host has cgroup2 alone."""
    return os.path.exists(f"{ROOT}/cgroup.controllers")


def of_process(pid: int) -> dict[str, str]:
    """The directories of a process's cgroups that exist; none if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        data = os.read(fd, _READ)
    except OSError:
        return {}
    finally:
        os.close(fd)
    unified = is_unified()
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        if unified:
            if not controllers and path != "/":
                found[UNIFIED] = ROOT + path
            continue
        if path == "/" or not controllers or "=" in controllers:
            continue
        for controller in controllers.split(","):
            if _is_seen(controller, path.rpartition("/")[0]):
                found[controller] = f"{ROOT}/{controller}{path}"
    return found


def _is_seen(controller: str, path: str) -> bool:
    """Whether a cgroup of the first version is where this process sees it; remembered if so, since its children follow one another."""
    key = (controller, path)
    if key in _SEEN:
        return True
    if not os.path.isdir(f"{ROOT}/{controller}{path}"):
        return False
    if len(_SEEN) >= _MOST_SEEN:
        _SEEN.clear()
    _SEEN.add(key)
    return True


def read(directory: str, name: str) -> str:
    """A file of a cgroup; empty if there is none."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _READ).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def numbers(text: str) -> dict[str, int]:
    """A file of lines with a name and a number each."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isascii() and value.isdigit():
            found[name] = int(value)
    return found


def number(text: str, otherwise: int = 0) -> int:
    """A file with one number; ``max`` and what is no number are ``otherwise``."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else otherwise


def limit_above(cgroup: str) -> int | None:
    """The memory limit in bytes of the cgroup that a caller's cgroup is to be made in, such as a pod's; None: it has none.

    :param cgroup: a path, or ``slice:prefix:name`` for systemd, whose slices ``a-b.slice`` lie in ``a.slice`` (systemd.slice(5)).
    """
    parent = _slice_path(cgroup.partition(":")[0]) if cgroup.count(":") == 2 else os.path.dirname(cgroup.rstrip("/"))
    parent = parent.strip("/")
    if not parent or ".." in parent.split("/"):
        return None
    if is_unified():
        text = read(f"{ROOT}/{parent}", "memory.max")
    else:
        text = read(f"{ROOT}/memory/{parent}", "memory.limit_in_bytes")
    found = number(text, _NO_LIMIT)
    return found if found < _NO_LIMIT else None


def _slice_path(name: str) -> str:
    words = name.removesuffix(".slice").split("-")
    return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))


def beside(cgroup: str, name: str) -> str:
    """The cgroup of something that belongs to a sandbox, next to that one's, such as in the pod's: in the form that the sandbox's has.

    :param cgroup: the sandbox's, as a caller gives it; empty: it has one at the top. :param name: of a sandbox of ours.
    """
    if cgroup.count(":") == 2:
        return f"{cgroup.partition(':')[0]}:{_PREFIX}:{name}"
    return os.path.join("/", os.path.dirname(cgroup.rstrip("/")), f"{_PREFIX}-{name}")


def path_of(cgroup: str) -> str:
    """Where a cgroup is, beneath each hierarchy's root; systemd makes a scope for ``slice:prefix:name`` (systemd.scope(5))."""
    if cgroup.count(":") != 2:
        return cgroup
    above, prefix, name = cgroup.split(":")
    return f"/{_slice_path(above)}/{prefix}-{name}.scope"


def freeze(cgroups: Mapping[str, str]) -> None:
    """Have no process of the cgroup run; returns when that is so, or after two seconds. A cgroup without a freezer is left."""
    _freezer(cgroups, frozen=True)


def thaw(cgroups: Mapping[str, str]) -> None:
    """Have them run again."""
    _freezer(cgroups, frozen=False)


def _freezer(cgroups: Mapping[str, str], *, frozen: bool) -> None:
    if UNIFIED in cgroups:
        path, value = f"{cgroups[UNIFIED]}/cgroup.freeze", "1" if frozen else "0"
    elif "freezer" in cgroups:
        path, value = f"{cgroups['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED"
    else:
        return
    with contextlib.suppress(FileNotFoundError), open(path, "w", encoding="ascii") as file:
        file.write(value)
    end = time.monotonic() + _FREEZE_SECONDS
    while is_frozen(cgroups) != frozen and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)


def is_frozen(cgroups: Mapping[str, str]) -> bool:
    """Whether the cgroup is frozen."""
    if UNIFIED in cgroups:
        return numbers(read(cgroups[UNIFIED], "cgroup.events")).get("frozen", 0) == 1
    return "freezer" in cgroups and read(cgroups["freezer"], "freezer.state").strip() == "FROZEN"


def oom_kills(cgroups: Mapping[str, str]) -> int:
    """How many processes the memory limit has killed."""
    if UNIFIED in cgroups:
        return numbers(read(cgroups[UNIFIED], "memory.events")).get("oom_kill", 0)
    if "memory" in cgroups:
        return numbers(read(cgroups["memory"], "memory.oom_control")).get("oom_kill", 0)
    return 0


def remove_empty(cgroups: Mapping[str, str]) -> None:
    """Take the directories away that nothing is in. Nothing is killed for it: a caller's path may be shared."""
    for directory in set(cgroups.values()):
        if directory.startswith(f"{ROOT}/") and ".." not in directory.split("/"):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
