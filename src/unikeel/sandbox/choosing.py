"""Which OCI runtime: crun, or runc where crun cannot run. Found out by a real trial, once per boot of the host.

Being installed says little: crun refuses a host whose cgroups are of both versions, and either may lack a permission. So where both are installed, a
sandbox like that of a monitor, with /usr/bin/true in it, is run by crun, and if that fails, by runc. The answer is kept in ``CACHE/runtime.json`` for
this boot and these programs; commands that come at the same time wait for the first one's answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from unikeel.errors import Unavailable
from unikeel.keeper.client import KeeperClient
from unikeel.kernel.paths import find_program, remove_tree
from unikeel.lean import Final
from unikeel.sandbox.runtime import CANDIDATES, Runtime, Sandboxes, find_runtime
from unikeel.values import NamedTuple

_FILE: Final = "runtime.json"
_PROGRAM: Final = "/usr/bin/true"
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_MEMORY_MIB: Final = 16
_ALLOWANCE: Final = 64 << 20


class Place(NamedTuple):
    """Where a trial may work: the runtimes' state, a directory for its bundle, the sandboxes' root, the memory of answers, a user id."""

    state: str
    bundle: str
    root: str
    cache: str
    uid: int


def choose_runtime(choice: str, keeper: KeeperClient, place: Place, notice: Callable[[str], None]) -> Runtime:
    """The runtime to use.

    :param choice: ``auto``; ``crun`` and ``runc`` are taken at their word. :param notice: is told when crun is there and cannot run.
    :raise Unavailable: none is installed, or none can run.
    """
    installed = [Runtime(name, path) for name in CANDIDATES if (path := find_program(name))]
    if choice != "auto" or len(installed) < 2:
        return find_runtime(choice)
    key = _key(installed)
    return _remembered(place.cache, key, installed) or _try_once(installed, key, keeper, place, notice)


def _try_once(
    installed: list[Runtime], key: str, keeper: KeeperClient, place: Place, notice: Callable[[str], None]
) -> Runtime:
    from unikeel.kernel.locks import locked
    from unikeel.monitors.memory import write_memory

    with locked(os.path.join(place.cache, "runtime.lock")):
        found = _remembered(place.cache, key, installed)
        if found is not None:
            return found
        failures: list[str] = []
        for runtime in installed:
            failure = _trial(runtime, keeper, place)
            if not failure:
                if failures:
                    notice(f"{'; '.join(failures)}: {runtime.name} confines the monitors")
                write_memory(place.cache, _FILE, {"key": key, "name": runtime.name, "failures": failures})
                return runtime
            failures.append(f"{runtime.name} cannot run here ({failure})")
    raise Unavailable(f"no OCI runtime to confine monitors with: {'; '.join(failures)}", "run `unikeel doctor`")


def _trial(runtime: Runtime, keeper: KeeperClient, place: Place) -> str:
    """Run a sandbox to its end; why that did not work, or an empty string. What a killed trial left goes first."""
    sandboxes = Sandboxes(runtime, keeper, place.state)
    _clear(sandboxes, place)
    try:
        _write_bundle(place)
        return sandboxes.run(trial_name(place.state), place.bundle)
    finally:
        _clear(sandboxes, place)


def trial_name(state: str) -> str:
    """The name of the trial's sandbox: another one for each runtime state directory, since all share the host's cgroups."""
    import zlib

    return f"trial-{zlib.crc32(os.fsencode(state)):08x}"


def _clear(sandboxes: Sandboxes, place: Place) -> None:
    from unikeel.sandbox import remains

    ident = trial_name(place.state)
    remains.kill_marked(ident)
    sandboxes.delete(ident)
    remains.remove_cgroups(ident)
    remove_tree(os.path.join(place.state, ident))
    remove_tree(place.bundle)


def _write_bundle(place: Place) -> None:
    from unikeel.model.plan import ExitRule, LaunchPlan
    from unikeel.sandbox.remains import cgroup_path
    from unikeel.sandbox.root import prepare_root
    from unikeel.sandbox.spec import SandboxRequest, build

    binds = (_PROGRAM, *(path for path in _LIBRARIES if os.path.exists(path)))
    plan = LaunchPlan((_PROGRAM,), (), (), (), _MEMORY_MIB, binds, ExitRule.SAME, powerdown=False)
    ident = trial_name(place.state)
    request = SandboxRequest(ident, plan, place.root, cgroup_path(ident), place.uid, 1, _ALLOWANCE)
    prepare_root(place.root, binds)
    os.mkdir(place.bundle, mode=0o700)
    fd = os.open(os.path.join(place.bundle, "config.json"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(build(request), file)


def _key(installed: list[Runtime]) -> str:
    """This boot of the host and these very programs."""
    from unikeel.records.owners import boot_id

    programs = [(runtime.path, os.stat(runtime.path)) for runtime in installed]
    return " ".join(
        [boot_id(), *(f"{path} {info.st_size} {info.st_mtime_ns} {info.st_ino}" for path, info in programs)]
    )


def _remembered(cache: str, key: str, installed: list[Runtime]) -> Runtime | None:
    from unikeel.monitors.memory import read_memory

    content = read_memory(cache, _FILE)
    if content.get("key") != key:
        return None
    return next((runtime for runtime in installed if runtime.name == content.get("name")), None)
