"""The network of guests: in a pod, which has the pod's address; in a namespace that is named; none."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.paths import PROJECT
from lab_support.cri.client import CriError
from lab_support.processes import kill_and_wait
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import PATIENCE, until
from lab_support.world import BUSYBOX, HELLO, ROOTS, World

__all__ = ["nothing_left"]
setting = settings(ROOTS)
_NAMESPACE = "k8s.io"
_LOGS = "/var/log/pods"
_NGINX = "lab.test/nginx:1"
_GET = """\
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    print(answer.status, answer.read().decode())
"""
_PING = """\
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
    sock.settimeout(1)
    while True:
        sock.sendto(b"\\x08\\0\\xf7\\xff" + bytes(4), (sys.argv[1], 0))
        try:
            while sock.recv(2048)[20:21] != b"\\0":
                pass
            break
        except TimeoutError:
            continue
print("pong")
"""
_ADDRESS = "10.99.0.2"
LONG = os.environ.get("UNIKEEL_LONG") == "1"


def get(world: World, url: str, netns: str = "") -> str:
    """What an HTTP server answers; empty: nothing yet."""
    enter = ["nsenter", f"--net={netns}"] if netns else []
    done = world.lab.run([*enter, "python3", "-c", _GET, url], check=False, timeout=20)
    return done.stdout if done.returncode == 0 else ""


def address_of(world: World, pod: str) -> str:
    """The address that CNI has given to a pod, as its address management notes it."""
    directory = world.lab.path("/var/lib/cni/networks/lab")
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            if pod in file.read():
                return name
    raise AssertionError(f"pod {pod} has no address")


def rename(source: str, target: str) -> None:
    """A copy of an image's archive with a name that the CRI plugin takes as it is."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.isfile():
                data = old.extractfile(member)
                assert data is not None
                content = data.read()
                if member.name == "index.json":
                    content = content.replace(b"nginx:latest", _NGINX.encode())
                    member.size = len(content)
                new.addfile(member, io.BytesIO(content))
            else:
                new.addfile(member)


def nginx(setting: Setting, namespace: str) -> None:
    """The sample that serves HTTP; it finds a disk, or one is made for it."""
    world = setting.world
    if _NGINX not in world.ctr("images", "ls", "-q", namespace=namespace).stdout.split():
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "nginx.tar")
            rename(os.path.join(PROJECT, "build/samples/nginx.tar"), path)
            world.import_archive(path, setting.snapshotter, namespace)


@contextmanager
def namespace(world: World, *, link: bool = True) -> Iterator[str]:
    """A network namespace with an address of its own, which the lab can reach; its path."""
    lab = world.lab
    holder = lab.spawn(["unshare", "--net", "sleep", "1000000"], "/var/log/tests-namespace")
    path = f"/proc/{holder}/ns/net"
    ours = os.readlink(lab.path("/proc/1/ns/net"))
    until(lambda: os.readlink(lab.path(path)) != ours, "there is another namespace")

    def inside(*words: str) -> None:
        lab.run(["nsenter", f"--net={path}", "ip", *words])

    try:
        inside("link", "set", "lo", "up")
        if link:
            lab.run(["ip", "link", "add", "veth-lab", "type", "veth", "peer", "name", "e0", "netns", str(holder)])
            lab.run(["ip", "addr", "add", "10.99.0.1/24", "dev", "veth-lab"])
            lab.run(["ip", "link", "set", "veth-lab", "up"])
            inside("addr", "add", f"{_ADDRESS}/24", "dev", "e0")
            inside("link", "set", "e0", "up")
            inside("route", "add", "default", "via", "10.99.0.1")
        yield path
    finally:
        if link:
            lab.run(["ip", "link", "del", "veth-lab"])
        lab.run(["kill", "-9", str(holder)])


def test_a_pod_s_guest_answers_at_the_pod_s_address(setting: Setting) -> None:
    world = setting.world
    world.provide(setting.snapshotter, _NAMESPACE)
    nginx(setting, _NAMESPACE)
    with world.cri.pod("web", handler="unikeel", logs=_LOGS) as pod:
        guest = pod.run("guest", _NGINX)
        sidecar = pod.run("sidecar", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))
        address = address_of(world, pod.id)
        url = f"http://{address}/"
        said = until(lambda: get(world, url), "nginx answers at the pod's address")
        assert said.startswith("200 ")
        assert world.lab.run(["python3", "-c", _PING, address], timeout=PATIENCE).stdout == "pong\n"
        assert not world.programs("passt.avx2", "--fd") + world.programs("passt", "--fd")
        links = world.cri.exec(sidecar, "ls", "/sys/class/net").stdout.decode().split()
        assert [name[:3] for name in links if name not in ("lo", "eth0", "sit0")] == ["uk-"]
        world.kill_daemon()
        assert get(world, url) == said
        world.cri.stop(guest, timeout=0)
        until(lambda: "uk-" not in world.cri.exec(sidecar, "ls", "/sys/class/net").stdout.decode(), "the tap is gone")
        assert get(world, url) == ""
        if LONG:
            # Its successor in the pod answers at the same address.
            pod.run("again", _NGINX)
            until(lambda: get(world, url), "the next one answers")


@pytest.mark.long
def test_ports_of_a_pod_lead_to_its_guest(setting: Setting) -> None:
    """User-mode networking, for pods whose other containers use the pod's address, too."""
    world = setting.world
    world.provide(setting.snapshotter, _NAMESPACE)
    nginx(setting, _NAMESPACE)
    with world.cri.pod("ports", handler="unikeel", logs=_LOGS) as pod:
        guest = pod.run("guest", _NGINX, annotations={"org.unikeel.network": "user"})
        sidecar = pod.run("sidecar", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))
        url = f"http://{address_of(world, pod.id)}/"
        said = until(lambda: get(world, url), "nginx answers at the pod's address")
        # Its neighbours in the pod reach it at the loopback address, as those of any container.
        answer = world.cri.exec(sidecar, "wget", "-q", "-O", "-", "http://127.0.0.1/")
        assert answer.exit_code == 0
        assert answer.stdout.decode().strip() in said
        (helper,) = world.programs("passt.avx2", "--interface") or world.programs("passt", "--interface")
        world.cri.stop(guest, timeout=0)
        until(lambda: not os.path.exists(f"/proc/{helper}"), "the helper ends with its guest")
        assert get(world, url) == ""


@pytest.mark.long
def test_knative_s_guest_is_behind_its_pod(setting: Setting) -> None:
    """Its proxy in the pod finds it at a fixed address."""
    world = setting.world
    world.provide(setting.snapshotter, _NAMESPACE)
    nginx(setting, _NAMESPACE)
    with world.cri.pod("knative", handler="unikeel", logs=_LOGS) as pod:
        if not os.path.lexists(world.lab.path("/usr/sbin/iptables")):
            with pytest.raises(CriError, match="needs iptables"):
                pod.run("user-container", _NGINX)
            return
        guest = pod.run("user-container", _NGINX)
        proxy = pod.run("queue-proxy", BUSYBOX, args=("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))

        def asked() -> str:
            answer = world.cri.exec(proxy, "wget", "-q", "-T", "5", "-O", "-", "http://172.16.1.2/")
            return answer.stdout.decode() if answer.exit_code == 0 else ""

        assert "unikernel" in until(asked, "nginx answers its neighbour")
        assert get(world, f"http://{address_of(world, pod.id)}/") == ""
        world.cri.stop(guest, timeout=0)
        until(lambda: not asked(), "it is gone")


def test_a_guest_in_a_namespace_that_is_named(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    nginx(setting, "default")
    with namespace(world) as path:
        setting.detached(
            ident,
            image=_NGINX,
            flags=["--with-ns", f"network:{path}"],
            annotations={"org.unikeel.network": "user", "org.unikeel.ports": "80/tcp"},
        )
        until(lambda: get(world, f"http://{_ADDRESS}/"), "nginx answers")
        world.remove(ident)


@pytest.mark.parametrize("annotations", [{}, {"org.unikeel.network": "none"}])
def test_no_network(setting: Setting, annotations: dict[str, str]) -> None:
    """A guest that is told nothing of a network has none, unless it is asked for; whoever asks for none gets none."""
    world, ident = setting.world, setting.new()
    with namespace(world) as path:
        image = _NGINX if annotations else HELLO
        nginx(setting, "default")
        setting.detached(
            ident,
            *([] if annotations else ["wait"]),
            image=image,
            flags=["--with-ns", f"network:{path}"],
            annotations=annotations,
        )
        (monitor,) = world.monitors()
        assert not any("netdev" in word for word in monitor.argv)
        world.remove(ident)


def test_a_network_that_cannot_be_is_a_sentence(setting: Setting) -> None:
    world = setting.world
    user = {"org.unikeel.network": "user"}

    def refused(*flags: str, **more: str) -> str:
        done = setting.run(setting.new(), flags=["--rm", *flags], annotations={**user, **more}, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return str(done.stderr)

    assert "--with-ns" in refused()
    world.lab.put("/var/log/no-namespace", b"text")
    assert "network namespace" in refused("--with-ns", "network:/var/log/no-namespace")
    assert "org.unikeel.ports" in refused("--with-ns", "network:/proc/1/ns/net", **{"org.unikeel.ports": "80,x"})
    assert "names no network namespace" in refused(**{"org.unikeel.network": "tap"})
    with namespace(world, link=False) as path:
        assert "there is no link" in refused("--with-ns", f"network:{path}", **{"org.unikeel.network": "tap"})
        assert "has an IPv4 address" in refused("--with-ns", f"network:{path}")


def test_a_helper_that_dies_leaves_the_guest(setting: Setting) -> None:
    """The guest is without a network then; its task goes on."""
    world, ident = setting.world, setting.new()
    with namespace(world) as path:
        setting.detached(
            ident,
            "echo exit=5",
            flags=["--with-ns", f"network:{path}"],
            annotations={"org.unikeel.network": "user", "org.unikeel.ports": "80"},
        )
        for name in ("passt.avx2", "passt"):
            for helper in world.programs(name, "--interface"):
                kill_and_wait(helper)
        world.await_status(ident, "RUNNING", PATIENCE)
        world.remove(ident)
