"""The sandbox from the inside: an attacker runs in the monitor's place, with the very descriptors that a start hands over.

It tries to change the files it shares with others (boot files of every strategy, the base image of its disk), to reach other containers and the host, and
to exceed its limits; as the container's user, and as uid 0 without capabilities; with the system call filter, and for the shared files without it, too,
so that they do not depend on it. The attempts are in ``tests/attacker/attacker.c``.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import unikeel
from engine_leftovers import host_leftovers, wait_keeper_gone
from engine_stages import PATIENCE, STRATEGIES, Stage, options
from unikeel.boot.contract import Choice, Source
from unikeel.engine import preparing, starting
from unikeel.engine.unpacking import parent_name
from unikeel.images.description import Overrides
from unikeel.model.plan import FileRole, LaunchPlan
from unikeel.sandbox.runtime import find_runtime

_SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "attacker", "attacker.c")
_KERNEL = "/boot/hello"
#: What may work: the attacker's own disk, and the end.
_ALLOWED = {"control@0", "finished@0"}


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("attacker") / "attacker")
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Werror", "-o", path, _SOURCE], check=True)
    return path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A state root with ``hello``, and ``private``: the same with a kernel that only root may read."""
    stage = Stage(str(tmp_path_factory.mktemp("attack")))
    with stage.engine() as engine:
        parent = engine.services.parent(parent_name(engine.image("hello")))
        kernel = engine.services.boot.read_file(Source(parent, "", (), False, 0), _KERNEL, Choice.CACHE, 1 << 20)
        context = os.path.join(stage.directory, "context")
        os.makedirs(os.path.join(context, "tree", "boot"))
        with open(os.path.join(context, "tree", "boot", "hello"), "wb") as file:
            file.write(kernel)
        os.chmod(os.path.join(context, "tree", "boot", "hello"), 0o600)
        with open(os.path.join(context, "image.toml"), "w", encoding="utf-8") as text:
            text.write(
                f'name = "private"\ntype = "generic"\nmonitor = "qemu"\nkernel = "{_KERNEL}"\nmount_rootfs = true\n'
            )
        engine.build(context, Overrides(), name="private")
    yield stage
    wait_keeper_gone(stage.root)
    assert host_leftovers(stage.root, stage.idents) == []


class Attack:
    """Starts of the attacker in place of QEMU."""

    def __init__(self, stage: Stage, attacker: str, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
        self.stage = stage
        self._attacker = attacker
        self._words = words
        self._original = preparing._plan
        monkeypatch.setattr(preparing, "_plan", self._plan)
        monkeypatch.setattr(starting, "await_vcpu", lambda *_: None)

    def _plan(self, *arguments: Any) -> LaunchPlan:
        plan = self._original(*arguments)
        shared = [plan.fd_of(file.role) for file in plan.files if file.role in (FileRole.KERNEL, FileRole.BACKING)]
        assert len(shared) == 2
        files = "files=" + ",".join(map(str, shared))
        argv = (self._attacker, files, f"disk={plan.fd_of(FileRole.DISK)}", *self._words)
        return plan._replace(argv=argv, binds=(self._attacker,), powerdown=False)

    def run(self, image: str, **changes: object) -> tuple[int, dict[str, str]]:
        """One run: its exit code, and what each attempt gave."""
        with self.stage.engine() as engine:
            container = engine.create(image, options(**changes))
            self.stage.idents.append(container.id)
            container.start(seconds=PATIENCE)
            code = container.wait(PATIENCE)
            results = dict(line.split() for line in self._said(container))
            strategy = container.record.strategy
            container.remove()
        assert strategy == changes.get("boot_files", strategy)
        return code, results

    @staticmethod
    def _said(container: unikeel.Container) -> list[str]:
        try:
            with open(os.path.join(container.directory, "monitor.log"), encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []


def _shared_files(stage: Stage) -> dict[str, str]:
    """Digests and attributes of everything in the state root that several containers use."""
    found = {}
    for directory in ("boot", "snapshots"):
        for place, _, names in os.walk(os.path.join(stage.root, directory)):
            for name in names:
                path = os.path.join(place, name)
                info = os.stat(path)
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path] = f"{digest} {info.st_mode:o} {info.st_uid} {info.st_size} {info.st_mtime_ns}"
    return found


@pytest.fixture(params=["its own user", "uid 0"])
def user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "uid 0":
        monkeypatch.setattr("unikeel.engine.services.Services.uid", lambda _self, _slot: 0)
    return str(request.param)


def _worked(results: Mapping[str, str]) -> set[str]:
    return {name for name, result in results.items() if result == "ok"} - _ALLOWED


def test_shared_files_with_runc(stage: Stage, attacker: str, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    monkeypatch.setattr("unikeel.sandbox.choosing.choose_runtime", lambda *_: find_runtime("runc"))
    code, results = Attack(stage, attacker, monkeypatch, ["attack", "port=1"]).run("hello", boot_files="cache")
    assert (code, results["control@0"], results["finished@0"]) == (0, "ok", "ok")
    assert _worked(results) == set(), user


@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("image", ["hello", "private"])
def test_shared_files(
    stage: Stage,
    attacker: str,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    image: str,
    strategy: str,
    filtered: bool,
) -> None:
    if not filtered:
        monkeypatch.setattr("unikeel.sandbox.spec.profile", lambda *_: {"defaultAction": "SCMP_ACT_ALLOW"})
    attack = Attack(stage, attacker, monkeypatch, ["shared"])
    attack.run(image, boot_files=strategy)  # so that what is made once is there
    before = _shared_files(stage)
    code, results = attack.run(image, boot_files=strategy)
    assert code == 0
    assert results["control@0"] == "ok"
    assert results["finished@0"] == "ok"
    assert len(results) > 50
    assert _worked(results) == set(), user
    after = _shared_files(stage)
    assert {path: after.get(path) for path in before} == before


def test_the_host_and_others(stage: Stage, attacker: str, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    with stage.engine() as engine, socket.create_server(("127.0.0.1", 0)) as server:
        other = engine.create("hello", options())
        other.start(ready="first-output")
        stage.idents.append(other.id)
        disk = engine.services.snapshots.disk(other.id).path
        paths = [
            *(os.path.join(other.directory, name) for name in ("console.sock", "qmp.sock", "console.log", "plan.json")),
            *(os.path.join(stage.root, name) for name in ("state.db", "run/keeper.sock", "run/oci", "owners")),
            *(disk, "/etc/shadow", "/root", "/etc/passwd", "/run", "/sys/fs/cgroup", "/var/lib"),
        ]
        words = ["attack", f"port={server.getsockname()[1]}", *(f"path={path}" for path in paths)]
        _, results = Attack(stage, attacker, monkeypatch, words).run("hello")
        monkeypatch.undo()
        state = other.refresh().state
        other.remove(force=True)
        assert results["finished@0"] == "ok"
        assert len(results) > 150
        assert _worked(results) == set(), user
        assert state is unikeel.ContainerState.RUNNING


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_what_the_kernel_says_of_it(stage: Stage, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    """From the outside: the real monitor's capabilities, filter, namespaces, limits and root."""
    monkeypatch.setattr("unikeel.sandbox.choosing.choose_runtime", lambda *_: find_runtime(runtime))
    with stage.engine() as engine:
        container = engine.create("hello", options(memory=64 << 20, cpus=1))
        stage.idents.append(container.id)
        container.start(ready="first-output")
        pid = container.record.pid
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = {name: value.strip() for name, value in (line.split(":", 1) for line in file)}
        uid = str(engine.services.uid(container.record.slot))
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {uid}
        assert status["Groups"] in ("", uid)
        assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        for space in ("mnt", "pid", "net", "ipc", "uts"):
            assert os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}")
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            mounts = {line.split()[4]: line.split()[5].split(",") for line in file}
        writable = {place for place, flags in mounts.items() if "ro" not in flags and not place.startswith("/proc")}
        assert writable <= {"/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom"}
        allowance = engine.config.sandbox_monitor_allowance
        assert _limit(container.id, "memory.limit_in_bytes", "memory.max") == str((64 << 20) + allowance)
        assert _limit(container.id, "pids.max", "pids.max") == "512"
        assert _limit(container.id, "cpu.cfs_quota_us", "cpu.max").split()[0] == "200000"
        with open(f"/proc/{pid}/net/dev", encoding="utf-8") as file:
            assert {line.split(":")[0].strip() for line in file.readlines()[2:]} <= {"lo"}
        container.remove(force=True)


def _limit(ident: str, first: str, second: str) -> str:
    from unikeel.sandbox.remains import cgroup_path, cgroups

    for place in cgroups(cgroup_path(ident)):
        for name in (first, second):
            if os.path.exists(os.path.join(place, name)):
                with open(os.path.join(place, name), encoding="ascii") as file:
                    return file.read().strip()
    raise AssertionError(f"no cgroup of {ident} has {first} or {second}")


def test_memory_is_limited(stage: Stage, attacker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = Attack(stage, attacker, monkeypatch, ["eat"]).run("hello", memory=16 << 20)
    assert code == 137


def test_processes_are_limited(stage: Stage, attacker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, results = Attack(stage, attacker, monkeypatch, ["fork"]).run("hello")
    assert code == 0
    (fork,) = [name for name in results if name.startswith("fork@")]
    assert results[fork] == "EAGAIN"
    assert 0 < int(fork.partition("@")[2]) < 512
