"""The lab itself: every containerd with every snapshotter, and nothing left when it ends."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import images, leftovers
from lab.errors import LabError
from lab.machine import Machine
from lab.native import Native
from lab.paths import PREFIX, PROJECT, cache
from lab.place import Place

NATIVE = [
    *(("trixie", snapshotter) for snapshotter in ("overlayfs", "blockfile", "native")),
    *(("sid", snapshotter) for snapshotter in ("overlayfs", "blockfile", "erofs", "native")),
]
_HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lab.native import Native
lab = Native("trixie", "blockfile", cri=False)
lab.open()
print(lab.identity, lab.init_pid, flush=True)
time.sleep(600)
"""


def runs_busybox(place: Place, snapshotter: str) -> None:
    words = [
        "--rm",
        "--snapshotter",
        snapshotter,
        "--runtime",
        "io.containerd.runc.v2",
        images.BUSYBOX,
        f"t-{snapshotter}",
    ]
    done = place.ctr("run", *words, "sh", "-c", "echo $((6*7)); exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "42\n"), done.stderr


@pytest.mark.parametrize(("root", "snapshotter"), NATIVE)
def test_a_native_containerd_runs_a_container(
    native: Callable[[str, str], Native], root: str, snapshotter: str
) -> None:
    runs_busybox(native(root, snapshotter), snapshotter)


@pytest.mark.parametrize(("root", "least"), [("trixie", (1, 7)), ("sid", (2, 1))])
def test_containerd_answers_its_version(
    native: Callable[[str, str], Native], root: str, least: tuple[int, int]
) -> None:
    lab = native(root, "overlayfs")
    server = lab.ctr("version").stdout.partition("Server:")[2]
    found = server.partition("Version:")[2].split()[0].split(".")
    assert (int(found[0]), int(found[1])) >= least
    assert lab.containerd_version.startswith(".".join(found[:2]))


@pytest.mark.parametrize("root", ["trixie", "sid"])
def test_the_working_tree_is_run_by_the_root_s_own_python(native: Callable[[str, str], Native], root: str) -> None:
    lab = native(root, "overlayfs")
    assert lab.run(["unikeel", "--version"]).stdout.startswith("unikeel ")
    program = "import sys; sys.path.insert(0, '/unikeel/src'); import unikeel.errors as e; print(e.__cached__, __import__('os').path.exists(e.__cached__))"
    assert lab.run(["/opt/unikeel/bin/python", "-I", "-S", "-c", program]).stdout.endswith("True\n")
    assert lab.run(["touch", "/unikeel/x"], check=False).returncode == 1
    assert lab.run(["/opt/unikeel/bin/python", "-c", "import grpclib, google.protobuf, qemu.qmp"]).returncode == 0


@pytest.mark.crictl
@pytest.mark.parametrize("root", ["trixie", "sid"])
def test_a_pod_runs(native: Callable[[str, str], Native], root: str) -> None:
    lab = native(root, "overlayfs")
    lab.import_image(images.archive("busybox"), namespace="k8s.io")
    lab.put(
        "/tmp/pod.json",
        b'{"metadata": {"name": "p", "namespace": "n", "uid": "u", "attempt": 0}, "log_directory": "/tmp/logs", "linux": {}}',
    )
    container = '{"metadata": {"name": "c"}, "image": {"image": "%s"}, "command": ["sh", "-c", "echo out; exit 4"], "log_path": "c.log", "linux": {}}'
    lab.put("/tmp/container.json", (container % images.BUSYBOX).encode())
    number = lab.run(["crictl", "run", "--no-pull", "/tmp/container.json", "/tmp/pod.json"]).stdout.strip()
    wait = (
        'until crictl inspect "$1" | grep -q CONTAINER_EXITED; do sleep 0.1; done; crictl inspect "$1" | grep exitCode'
    )
    assert '"exitCode": 4' in lab.run(["sh", "-c", wait, "sh", number], timeout=20).stdout
    assert lab.get("/tmp/logs/c.log").endswith(b" stdout F out\n")
    lab.run(["sh", "-c", "crictl rmp -f $(crictl pods -q)"])


def test_commands_have_input_exit_codes_and_a_time_limit(native: Callable[[str, str], Native]) -> None:
    lab = native("trixie", "overlayfs")
    assert lab.run(["cat"], input="through").stdout == "through"
    with pytest.raises(LabError, match=r"failed with exit status 3: bad"):
        lab.run(["sh", "-c", "echo bad >&2; exit 3"])
    with pytest.raises(LabError, match=r"has not ended after 0 s"):
        lab.run(["sleep", "60"], timeout=0.3)
    assert "sleep 60" not in lab.run(["ps", "axo", "args"]).stdout


def test_containerd_comes_back_after_being_killed() -> None:
    with Native("trixie", cri=False) as lab:
        lab.import_image(images.archive("busybox"))
        lab.ctr("run", "-d", "--runtime", "io.containerd.runc.v2", images.BUSYBOX, "stays", "sleep", "600")
        before = lab.containerd_pid
        lab.restart_containerd(kill=signal.SIGKILL)
        assert lab.containerd_pid != before
        assert "RUNNING" in lab.ctr("tasks", "ls").stdout


def test_nothing_is_left_after_closing() -> None:
    lab = Native("trixie", "blockfile", cri=False)
    with lab:
        lab.import_image(images.archive("busybox"))
        lab.ctr(
            "run",
            "-d",
            "--snapshotter",
            "blockfile",
            "--runtime",
            "io.containerd.runc.v2",
            images.BUSYBOX,
            "stays",
            "sleep",
            "600",
        )
        assert leftovers.cgroups(lab.identity)
        pid = lab.init_pid
    assert lab.close() == []
    assert not leftovers.cgroups(lab.identity)
    assert not os.path.exists(lab.scratch)
    assert not os.path.exists(f"/proc/{pid}")


def test_nothing_is_left_when_the_test_process_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDER, PROJECT], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        identity, pid = holder.stdout.readline().split()
        holder.kill()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < end, "the lab lives on"
        time.sleep(0.05)
    time.sleep(0.2)
    leftovers.sweep()
    assert not leftovers.cgroups(identity)
    assert not glob.glob(cache("scratch", PREFIX + identity))


def test_a_sweep_takes_no_lab_that_begins_and_none_that_another_sweep_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIKEEL_CACHE", str(tmp_path))
    begun, dying = cache("scratch", PREFIX + "begun"), cache("scratch", PREFIX + "dying")
    lock, real = leftovers.claim(begun), glob.glob

    def listed(pattern: str) -> list[str]:
        found = real(pattern)
        return [dying, *found] if pattern.startswith(str(tmp_path)) else found  # gone since it was listed

    monkeypatch.setattr(glob, "glob", listed)
    leftovers.sweep()
    assert os.listdir(begun) == ["lock"]
    os.close(lock)
    leftovers.sweep()
    assert not os.path.exists(begun)


@pytest.mark.parametrize("lives", [True, False])
def test_a_lab_s_lock_is_locked_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    """Between the two, another lab's sweep finds a directory without a lock, and leaves it for a while."""
    monkeypatch.setenv("UNIKEEL_CACHE", str(tmp_path))
    scratch, rename = cache("scratch", PREFIX + "new"), os.rename

    def swept(before: str, after: str) -> None:
        if not lives:
            os.utime(scratch, (0, 0))  # its process stopped here long ago
        leftovers.sweep()
        if lives:
            rename(before, after)

    monkeypatch.setattr(os, "rename", swept)
    os.close(leftovers.claim(scratch))
    assert os.path.exists(scratch) == lives


def test_the_machine_has_device_mapper(machine: Machine) -> None:
    assert "pool" in machine.run(["dmsetup", "ls"]).stdout
    runs_busybox(machine, "devmapper")
    assert machine.run(["stat", "-f", "-c", "%T", "/sys/fs/cgroup"]).stdout == "cgroup2fs\n"


def test_the_machine_runs_the_working_tree(machine: Machine) -> None:
    assert machine.run(["unikeel", "--version"]).stdout.startswith("unikeel ")


def test_the_machine_takes_files_and_commands_at_once(machine: Machine) -> None:
    data = os.urandom(9 << 20)
    machine.put("/tmp/data", data)
    assert machine.get("/tmp/data") == data
    began = time.monotonic()
    sleepers = [threading.Thread(target=machine.run, args=(["sleep", "2"],)) for _ in range(8)]
    for thread in sleepers:
        thread.start()
    for thread in sleepers:
        thread.join()
    assert time.monotonic() - began < 15  # one after the other, they would take 16
    with pytest.raises(LabError, match=r"has not ended"):
        machine.run(["sleep", "60"], timeout=0.5)
    with pytest.raises(LabError, match=r"No such file"):
        machine.get("/nowhere")


@pytest.mark.long
def test_a_machine_boots_systemd_and_another_keeps_its_disk() -> None:
    with Machine(systemd=True, keep=True) as first:
        assert first.get("/proc/1/comm") == b"systemd\n"
        first.put("/root/kept", b"here")
    with Machine(keep=True) as second:
        assert second.get("/root/kept") == b"here"
    assert not os.path.exists(second.scratch)
