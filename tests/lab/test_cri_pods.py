"""Pods, as the kubelet makes them: the pause container, a unikernel and an ordinary sidecar in one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from lab_support.cri import cri_pb2 as api
from lab_support.cri.client import CriError, Pod, parse_log, text_of
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import PATIENCE, until
from lab_support.world import ANNOTATED, BUSYBOX, HELLO, LABELLED, MONITOR, ROOTS, SILENT

__all__ = ["nothing_left"]
setting = settings(ROOTS)
_NAMESPACE = "k8s.io"
_LOGS = "/var/log/pods"
_numbers = itertools.count(1)
_GIVEN = {
    "com.urunc.unikernel.unikernelType": "generic",
    "com.urunc.unikernel.hypervisor": "qemu",
    "com.urunc.unikernel.binary": "/boot/hello",
}


@pytest.fixture
def pod(setting: Setting) -> Iterator[Pod]:
    """A pod of our handler, and the look at what is left of it."""
    world = setting.world
    world.provide(setting.snapshotter, _NAMESPACE)
    with world.cri.pod(f"p{next(_numbers)}", handler="unikeel", logs=_LOGS) as made:
        yield made
    assert world.cri.pods() == {}
    assert world.cri.containers() == {}
    assert world.tasks(_NAMESPACE) == {}


def log(setting: Setting, pod: Pod, name: str, wanted: str) -> str:
    """What a container has written, once that is what is wanted."""
    lab = setting.world.lab

    def read() -> str:
        done = lab.run(["cat", pod.log_of(name)], check=False)
        text = text_of(parse_log(done.stdout.encode()))
        return text if wanted in text else ""

    return until(read, f"{name} writes {wanted!r}")


def test_a_guest_and_a_sidecar(setting: Setting, pod: Pod) -> None:
    """The whole life of a mixed pod."""
    cri, world = setting.world.cri, setting.world
    sidecar = pod.run("sidecar", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"))
    guest = pod.run("guest", HELLO, args=("wait",))
    assert "hello from a unikernel" in log(setting, pod, "guest", "command line: wait")
    assert log(setting, pod, "sidecar", "up") == "up\n"
    assert len(world.monitors()) == 1
    assert {cri.status(found).state for found in (guest, sidecar)} == {api.CONTAINER_RUNNING}

    answer = cri.exec(sidecar, "sh", "-c", "echo exec; exit 4")
    assert (answer.stdout, answer.exit_code) == (b"exec\n", 4)
    with pytest.raises(CriError, match="guest") as refused:
        cri.exec(guest, "sh")
    assert "Traceback" not in refused.value.message

    stats = until(lambda: _all_stats(pod, guest, sidecar), "there are statistics of both")
    assert stats[guest].memory.working_set_bytes.value > 1 << 20
    assert stats[guest].cpu.usage_core_nano_seconds.value > 0
    assert cri.stats(sidecar).memory.working_set_bytes.value > 0

    cri.stop(sidecar)
    assert cri.ended(sidecar).exit_code == 3
    assert cri.status(guest).state == api.CONTAINER_RUNNING
    cri.stop(guest, timeout=1)
    assert cri.ended(guest).exit_code in (137, 143)
    assert pod.state == api.SANDBOX_READY
    pod.stop()
    assert pod.state == api.SANDBOX_NOTREADY


def _all_stats(pod: Pod, *containers: str) -> dict[str, api.ContainerStats]:
    found = pod.cri.all_stats()
    there = [found[name] for name in containers if name in found]
    return found if len(there) == len(containers) and all(one.memory.working_set_bytes.value for one in there) else {}


def test_the_exit_code_and_the_log(setting: Setting, pod: Pod) -> None:
    cri = setting.world.cri
    guest = pod.run("guest", HELLO, args=("exit=17",))
    status = cri.ended(guest)
    assert (status.exit_code, status.reason) == (17, "Error")
    assert status.created_at <= status.started_at <= status.finished_at
    assert "command line: exit=17" in log(setting, pod, "guest", "exit=17")
    good = pod.run("good", HELLO)
    assert (cri.ended(good).exit_code, cri.status(good).reason) == (0, "Completed")


@pytest.mark.parametrize("image", [LABELLED, ANNOTATED])
def test_the_image_says_what_it_is(setting: Setting, pod: Pod, image: str) -> None:
    """Annotations of the manifest and labels of the configuration; the pod says nothing."""
    assert setting.world.cri.ended(pod.run("guest", image, args=("exit=6",))).exit_code == 6


def test_the_container_s_annotations_say_it(setting: Setting, pod: Pod) -> None:
    """``container_annotations`` lets them through."""
    assert setting.world.cri.ended(pod.run("guest", SILENT, args=("exit=6",), annotations=_GIVEN)).exit_code == 6


def test_the_pod_s_annotations_say_it(setting: Setting) -> None:
    """``pod_annotations`` lets them through to every container: the strategy of all guests of a pod."""
    world = setting.world
    world.provide(setting.snapshotter, _NAMESPACE)
    with world.cri.pod(
        "annotated", handler="unikeel", logs=_LOGS, annotations={"org.unikeel.boot-files": "shared-view"}
    ) as pod:
        guest = pod.run("guest", HELLO, args=("wait",))
        log(setting, pod, "guest", "command line: wait")
        assert "shared-view" in world.unikeel("timeline", guest).stdout


def test_without_a_word_it_is_an_ordinary_container(setting: Setting, pod: Pod) -> None:
    """Nothing says that there is a guest in this image, and it has no program: the ordinary runtime's error."""
    container = pod.create("silent", SILENT, args=("exit=6",))
    with pytest.raises(CriError, match="executable file not found|no such file"):
        setting.world.cri.start(container)


def test_a_wrong_annotation_is_a_sentence(setting: Setting, pod: Pod) -> None:
    container = pod.create("guest", HELLO, annotations={"org.unikeel.boot-files": "nonsense"})
    with pytest.raises(CriError, match="boot-files") as refused:
        setting.world.cri.start(container)
    assert "Traceback" not in refused.value.message


def test_a_limit_is_changed(setting: Setting, pod: Pod) -> None:
    world = setting.world
    guest = pod.create("guest", HELLO, args=("wait",), memory=1 << 30)
    world.cri.start(guest)
    world.cri.update(guest, memory_limit_in_bytes=900 << 20)
    until(lambda: world.memory_limit(guest, _NAMESPACE) == (900 << 20) + MONITOR, "the limit is the new one")


def test_a_terminal_in_a_pod(setting: Setting, pod: Pod) -> None:
    """With a terminal there is no stream of errors, and the log has what the guest prints."""
    guest = pod.create("guest", HELLO, args=("exit=5",), tty=True)
    setting.world.cri.start(guest)
    assert setting.world.cri.ended(guest).exit_code == 5
    assert "command line: exit=5" in log(setting, pod, "guest", "exit=5")


def test_the_pod_s_own_container_dies(setting: Setting, pod: Pod) -> None:
    """The pause container is runc's, through a relay where containerd wants one; its end is noticed, and the guest's is its own."""
    world = setting.world
    guest = pod.run("guest", HELLO, args=("wait",))
    world.ctr("tasks", "kill", "-s", "KILL", pod.id, namespace=_NAMESPACE)
    until(lambda: pod.state == api.SANDBOX_NOTREADY, "the pod is not ready")
    assert world.cri.status(guest).state == api.CONTAINER_RUNNING
    world.cri.stop(guest, timeout=0)


def test_pods_live_through_the_daemon_s_death(setting: Setting, pod: Pod) -> None:
    world = setting.world
    sidecar = pod.run("sidecar", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))
    guest = pod.run("guest", HELLO, args=("wait",))
    log(setting, pod, "guest", "command line")
    world.kill_daemon()
    assert world.cri.exec(sidecar, "echo", "here").stdout == b"here\n"
    assert {world.cri.status(found).state for found in (guest, sidecar)} == {api.CONTAINER_RUNNING}
    assert pod.state == api.SANDBOX_READY
    another = pod.run("another", HELLO, args=("exit=2",))
    assert world.cri.ended(another).exit_code == 2
    world.cri.stop(guest, timeout=0)
    assert world.cri.ended(guest).exit_code == 137


def test_pods_live_through_containerd_s_death(setting: Setting, pod: Pod) -> None:
    world = setting.world
    sidecar = pod.run("sidecar", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))
    guest = pod.run("guest", HELLO, args=("wait",))
    for number in (9, 15):
        world.lab.restart_containerd(kill=number)
        until(lambda: _is_there(pod, guest, sidecar), "containerd has found everything again", PATIENCE)
    assert world.cri.exec(sidecar, "echo", "here").stdout == b"here\n"
    world.cri.stop(guest, timeout=0)
    assert world.cri.ended(guest).exit_code == 137


def _is_there(pod: Pod, *containers: str) -> bool:
    try:
        states = {pod.cri.status(name).state for name in containers}
    except (CriError, OSError):
        return False  # the plugin comes a moment after the socket
    return states == {api.CONTAINER_RUNNING} and pod.state == api.SANDBOX_READY


@pytest.mark.crictl
def test_crictl(setting: Setting, pod: Pod) -> None:
    """The same containers, by the tool that people have."""
    world = setting.world
    guest = pod.run("guest", HELLO, args=("wait",))
    log(setting, pod, "guest", "command line")
    assert guest[:12] in world.lab.run(["crictl", "ps"]).stdout
    assert "hello from a unikernel" in world.lab.run(["crictl", "logs", guest]).stdout
    assert guest[:12] in world.lab.run(["crictl", "stats"]).stdout
    done = world.lab.run(["crictl", "exec", guest, "sh"], check=False)
    assert done.returncode != 0
    assert "guest" in done.stderr
    world.lab.run(["crictl", "stop", "--timeout", "0", guest])
    assert world.cri.ended(guest).exit_code == 137
