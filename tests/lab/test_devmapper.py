"""The whole task API on device-mapper's thin snapshots, in the virtual machine, where cgroups are of version 2 alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import Machine
from lab_support import archives, oom
from lab_support.asking import Refused, ask
from lab_support.events import Events
from lab_support.waiting import PATIENCE, until
from lab_support.world import DISK, MONITOR, RUNTIME

_SNAPSHOTTER = "devmapper"
_LOG = "/var/log/unikeel-daemon.log"
_LEFT = "ls /run/unikeel/daemon/tasks; pgrep -l qemu-system; ctr tasks ls -q; ctr containers ls -q; true"
_MIB = 1 << 20


@pytest.fixture(scope="module")
def place(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The session's machine, with a daemon of ours and an image whose guests have their snapshot as a disk. Nothing of ours is left in it."""
    scratch = Path(tmp_path_factory.mktemp("devmapper"))
    machine.import_image(archives.write(archives.guest(DISK, values=archives.DISK), str(scratch / "disk.tar")))
    machine.import_image(oom.write(str(scratch / "glutton.tar")))
    machine.run(["unikeel", "daemon", "--detach"], timeout=PATIENCE * machine.slowness)
    yield machine
    left = machine.run(["sh", "-c", _LEFT]).stdout
    machine.run(["sh", "-c", "pkill -x unikeel-keeper; while pgrep -x 'unikeel-(keeper|daemon)'; do sleep 0.1; done"])
    assert left == ""


def tasks(place: Machine) -> dict[str, tuple[int, str]]:
    """Number and status of each task, as ``ctr`` says."""
    lines = [line.split() for line in place.ctr("tasks", "ls").stdout.splitlines()[1:]]
    return {words[0]: (int(words[1]), words[2]) for words in lines if len(words) == 3}


def run(place: Machine, ident: str, *args: str, log: bool = True) -> None:
    """``ctr run -d`` of the image with a disk."""
    flags = ["--log-uri", f"file:///var/log/{ident}.out"] if log else []
    place.ctr("run", "-d", "--runtime", RUNTIME, "--snapshotter", _SNAPSHOTTER, *flags, DISK, ident, *args)


def limit(place: Machine, pid: int) -> int:
    """The memory limit of a process's cgroup."""
    return int(place.run(["sh", "-c", f"cat /sys/fs/cgroup$(cut -d: -f3 /proc/{pid}/cgroup)/memory.max"]).stdout)


def test_a_life(place: Machine) -> None:
    """run, ls, ps, metrics, pause, resume, exec, checkpoint, update, kill, wait, delete, and what is told of it all."""
    with Events(place) as events:
        run(place, "life", "wait")
        pid, status = tasks(place)["life"]
        assert status == "RUNNING"
        assert place.get(f"/proc/{pid}/comm").startswith(b"qemu-system")
        until(lambda: b", ext4" in place.get("/var/log/life.out"), "the guest has its disk", PATIENCE * place.slowness)
        assert str(pid) in place.ctr("tasks", "ps", "life").stdout.split()
        usage = json.loads(place.ctr("tasks", "metrics", "--format", "json", "life").stdout)["memory"]["usage"]
        assert int(usage) > _MIB
        place.ctr("tasks", "pause", "life")
        assert tasks(place)["life"] == (pid, "PAUSED")
        place.ctr("tasks", "resume", "life")
        assert tasks(place)["life"] == (pid, "RUNNING")
        ask(place, "update", "life", {"memory": {"limit": 300 * _MIB}})
        assert limit(place, pid) == 300 * _MIB + MONITOR
        for method, *words in (("exec", {"args": ["sh"]}), ("checkpoint",)):
            with pytest.raises(Refused, match=r"life is a unikernel|life cannot be") as refused:
                ask(place, method, "life", *words)
            assert refused.value.kind == "Unimplemented"
        place.ctr("tasks", "kill", "-s", "SIGTERM", "life")
        assert ask(place, "wait", "life")[0] == 128 + 15
        assert ask(place, "delete", "life")[0] == 128 + 15
        place.ctr("containers", "rm", "life")
        wanted = ["create", "start", "paused", "resumed", "exit", "delete"]
        assert events.await_topic("life", "delete") == wanted


def test_attaching(place: Machine) -> None:
    """What is typed reaches the guest, what it says comes back, and its exit code is ctr's, which then deletes the task."""
    run(place, "typed", "echo exit=8", log=False)
    done = place.ctr("tasks", "attach", "typed", input="still there\n\x04", check=False, timeout=PATIENCE)
    assert (done.returncode, "still there" in done.stdout) == (8, True), (done.stdout, done.stderr)
    place.ctr("containers", "rm", "typed")


def test_a_guest_that_its_limit_kills(place: Machine) -> None:
    oom.die(place, _SNAPSHOTTER, "eats")


_NAMESPACE = """\
modprobe -a vhost_net veth
unshare --net sleep 1000000 </dev/null >/dev/null 2>&1 &
holder=$!
while [ "$(readlink /proc/$holder/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add veth-lab type veth peer name e0 netns $holder
ip link set veth-lab up
nsenter --net=/proc/$holder/ns/net sh -c '
ip addr add 10.99.0.2/24 dev e0; ip link set e0 up; ip route add default via 10.99.0.1'
echo $holder
"""
_INGRESS = "tc filter show dev e0 ingress; ip -brief link"


@pytest.mark.long
def test_a_tap_on_the_distribution_s_kernel(place: Machine) -> None:
    """Modules are loaded when they are needed; frames are moved by vhost-net, which the monitor has as a descriptor, whatever its device rules are."""
    holder = place.run(["sh", "-c", _NAMESPACE]).stdout.split()[-1]
    path = f"/proc/{holder}/ns/net"

    def looked() -> str:
        return place.run(["nsenter", f"--net={path}", "sh", "-c", _INGRESS]).stdout

    flags = ["--with-ns", f"network:{path}", "--annotation", "org.unikeel.network=tap"]
    place.ctr("run", "-d", "--runtime", RUNTIME, "--snapshotter", _SNAPSHOTTER, *flags, DISK, "tapped", "wait")
    pid, _ = tasks(place)["tapped"]
    command = place.get(f"/proc/{pid}/cmdline").decode()
    assert "vhost=on" in command, command
    assert "mirred (Egress Redirect to device uk-" in looked()
    place.ctr("tasks", "kill", "-s", "SIGKILL", "tapped")
    assert ask(place, "wait", "tapped")[0] == 128 + 9
    assert ask(place, "delete", "tapped")[0] == 128 + 9
    place.ctr("containers", "rm", "tapped")
    left = looked()
    assert "uk-" not in left
    assert "mirred" not in left
    place.run(["sh", "-c", f"kill -9 {holder}; ip link del veth-lab 2>/dev/null; true"])
