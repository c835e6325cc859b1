"""Under a real systemd, in a virtual machine with device-mapper: installed as a user installs it, and killed as a user fears it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lab.machine import Machine
from lab_support import archives
from lab_support.waiting import until
from lab_support.world import HELLO, RUNTIME

#: Minutes of emulated systemd: for `make test-full`.
pytestmark = pytest.mark.long
#: Everything is emulated twice over here.
_PATIENCE = 240
_CONFIG = "/etc/containerd/config.toml"
_SHOW = ("systemctl", "show", "--value", "--property")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """systemd, containerd with devmapper, and unikeel installed by its own command, its daemon not started yet."""
    with Machine(systemd=True, boot_seconds=600) as booted:
        booted.start_containerd("devmapper", cri=False)
        _forget_runtime(booted)
        done = booted.run(["unikeel", "install", "containerd", "--yes", "--snapshotter", "unikeel"], timeout=_PATIENCE)
        assert "systemctl" in done.stdout + done.stderr
        booted.run(["systemctl", "daemon-reload"], timeout=_PATIENCE)
        sockets = ("unikeel.socket", "unikeel-snapshots.socket")
        booted.run(["systemctl", "enable", "--now", *sockets], timeout=_PATIENCE)
        booted.restart_containerd()
        path = Path(tmp_path_factory.mktemp("systemd")) / "hello.tar"
        archives.write(archives.guest(HELLO, values=archives.DISK), str(path))
        booted.import_image(str(path))
        yield booted
        left = booted.run(["sh", "-c", "ls /run/unikeel/daemon/tasks; pgrep -l qemu-system || true"]).stdout
        assert left == ""


def _forget_runtime(machine: Machine) -> None:
    """The lab's configuration of containerd names our runtime and our snapshotter already; a user's does not."""
    text = machine.get(_CONFIG).decode()
    ours = (".runtimes.unikeel]", "proxy_plugins.unikeel]")
    tables = [table for table in text.split("\n[") if not any(name in table for name in ours)]
    machine.put(_CONFIG, "\n[".join(tables).encode())


def main_pid(machine: Machine) -> int:
    """The keeper's process number; 0: there is none."""
    return int(machine.run([*_SHOW, "MainPID", "unikeel.service"]).stdout)


def detached(machine: Machine, ident: str, *args: str) -> int:
    """Start a guest; its monitor's process number."""
    words = (
        "run",
        "-d",
        "--runtime",
        RUNTIME,
        "--snapshotter",
        "devmapper",
        "--log-uri",
        f"file:///var/log/{ident}.out",
    )
    machine.ctr(*words, HELLO, ident, *args)
    return tasks(machine)[ident][0]


def tasks(machine: Machine) -> dict[str, tuple[int, str]]:
    """Number and status of each task, as containerd says."""
    lines = [line.split() for line in machine.ctr("tasks", "ls").stdout.splitlines()[1:]]
    return {words[0]: (int(words[1]), words[2]) for words in lines if len(words) == 3}


def kill_keeper(machine: Machine) -> None:
    """``kill -9`` of the service's main process, and wait for the next one to serve."""
    before = main_pid(machine)
    machine.run(["kill", "-9", str(before)])
    until(lambda: main_pid(machine) not in (0, before), "systemd has started another keeper", _PATIENCE)
    until(lambda: state(machine) == "active", "it serves", _PATIENCE)


def state(machine: Machine) -> str:
    """What systemd says of the service."""
    return machine.run(["systemctl", "is-active", "unikeel.service"], check=False).stdout.strip()


def end(machine: Machine, ident: str) -> None:
    """Kill a task, and take it away."""
    machine.ctr("tasks", "kill", "-s", "KILL", ident)
    until(lambda: tasks(machine)[ident][1] == "STOPPED", f"{ident} has ended", _PATIENCE)
    done = machine.ctr("tasks", "delete", ident, check=False)
    assert "137" in done.stderr or done.returncode == 137, done.stderr
    machine.ctr("containers", "rm", ident)


def snapshots(machine: Machine, *words: str) -> bool:
    """Ask containerd something of our snapshotter; whether it succeeds."""
    return machine.ctr("snapshots", "--snapshotter", "unikeel", *words, check=False, timeout=_PATIENCE).returncode == 0


def test_the_first_snapshot_starts_the_service(machine: Machine) -> None:
    """What containerd asks while there is no daemon waits for one; over the death of the keeper the socket stays."""
    # containerd waits for a second until it is greeted, which is less than the keeper takes to start where everything is emulated.
    until(lambda: snapshots(machine, "prepare", "first"), "the service is started and answers", _PATIENCE)
    until(lambda: state(machine) == "active", "it is answered before systemd has taken note", _PATIENCE)
    for ident in ("second", "third"):
        machine.run(["pkill", "-KILL", "-x", "unikeel-daemon"])
        assert snapshots(machine, "prepare", ident)
    kill_keeper(machine)
    for ident in ("first", "second", "third"):
        until(partial(snapshots, machine, "rm", ident), "it is there and goes", _PATIENCE)
    machine.run(["systemctl", "stop", "unikeel.service"], timeout=_PATIENCE)


def test_the_first_task_starts_the_service(machine: Machine) -> None:
    assert state(machine) != "active"
    detached(machine, "first", "wait")
    until(lambda: state(machine) == "active", "systemd has taken note", _PATIENCE)
    assert main_pid(machine) > 1
    assert tasks(machine)["first"][1] == "RUNNING"
    timeline = machine.run(["unikeel", "timeline", "--json", "first"], timeout=_PATIENCE).stdout
    assert '"thin ' in timeline, "the disk's table was looked at"
    end(machine, "first")


def test_only_a_thin_device_is_a_snapshot(machine: Machine) -> None:
    """Another device of device-mapper's under the name that was given is refused, with what it is."""
    machine.run(
        [
            "sh",
            "-ec",
            'truncate -s 1M /tmp/plain; dmsetup create plain --table "0 2048 linear $(losetup -f --show /tmp/plain) 0"',
        ]
    )
    code = (
        "from unikeel.shim.disks import RootMount, open_disk\n"
        "from unikeel.errors import FailedPrecondition\n"
        "try:\n    open_disk(RootMount('ext4', '/dev/mapper/plain'))\n"
        "except FailedPrecondition as error:\n    print(error)\n"
    )
    said = machine.run(
        ["env", "PYTHONPATH=/unikeel/src", "/opt/unikeel/bin/python", "-c", code], timeout=_PATIENCE
    ).stdout
    machine.run(["sh", "-c", "dmsetup remove plain; losetup -j /tmp/plain | cut -d: -f1 | xargs losetup -d"])
    assert "is no thin device of 1048576 bytes" in said
    assert "linear" in said


def test_the_keeper_is_killed_while_guests_run(machine: Machine) -> None:
    monitor = detached(machine, "runs", "wait")
    machine.run(["mkfifo", "/tmp/input"])
    words = f"run --rm --runtime {RUNTIME} --snapshotter devmapper {HELLO} waits 'echo exit=7'"
    script = f"sleep 100000 >/tmp/input & ctr {words} </tmp/input >/tmp/output 2>&1; echo $? >/tmp/code; kill %1"
    machine.spawn(["bash", "-c", script], "/tmp/script")
    until(lambda: tasks(machine).get("waits", (0, ""))[1] == "RUNNING", "both run", _PATIENCE)
    for _ in range(3):
        kill_keeper(machine)
        now = tasks(machine)
        assert now["runs"] == (monitor, "RUNNING")
        assert now["waits"][1] == "RUNNING"
    assert not [line for line in machine.logs().splitlines() if "shim disconnected" in line and "id=first" not in line]
    machine.run(["sh", "-c", "echo last words >/tmp/input"])
    until(lambda: "last words" in machine.get("/tmp/output").decode(), "the guest is heard", _PATIENCE)
    machine.run(["sh", "-c", "printf '\\004' >/tmp/input"])
    until(lambda: machine.run(["test", "-s", "/tmp/code"], check=False).returncode == 0, "the client ends", _PATIENCE)
    # Who is not its parent learns how a process has ended from Linux 6.15 on; before, the code is the one that says that nobody knows.
    release = tuple(int(part) for part in machine.kernel.split("-")[0].split(".")[:2])
    assert machine.get("/tmp/code") == (b"7\n" if release >= (6, 15) else b"255\n")
    detached(machine, "later", "wait")
    for ident in ("runs", "later"):
        end(machine, ident)


def test_an_end_while_there_is_no_keeper(machine: Machine) -> None:
    """The exit code is the guest's own: whoever is the keeper sees it."""
    monitor = detached(machine, "ends", "wait")
    before = main_pid(machine)
    script = f"kill -9 {before}; kill -9 {monitor}"
    machine.run(["sh", "-c", script])
    until(lambda: main_pid(machine) not in (0, before), "systemd has started another keeper", _PATIENCE)
    until(lambda: tasks(machine)["ends"][1] == "STOPPED", "the end is known", _PATIENCE)
    machine.ctr("tasks", "delete", "ends", check=False)
    machine.ctr("containers", "rm", "ends")


def test_the_service_is_restarted_and_stopped(machine: Machine) -> None:
    monitor = detached(machine, "stays", "wait")
    machine.run(["systemctl", "restart", "unikeel.service"], timeout=_PATIENCE)
    until(lambda: state(machine) == "active", "it serves", _PATIENCE)
    assert tasks(machine)["stays"] == (monitor, "RUNNING")
    machine.run(["systemctl", "stop", "unikeel.service"], timeout=_PATIENCE)
    assert os.path.basename(machine.run(["readlink", f"/proc/{monitor}/exe"]).stdout.strip()).startswith("qemu")
    detached(machine, "again", "wait")
    end(machine, "again")
    assert tasks(machine)["stays"] == (monitor, "RUNNING")
    end(machine, "stays")
