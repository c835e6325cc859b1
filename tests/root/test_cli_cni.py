"""``--net CONFLIST`` with CNI's real plugins, in a network namespace of the test's own: a guest that other machines can reach, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_world import LIMIT, PROGRAM, Cli, sample
from engine_stages import LONG, Stage, kill_command_at, options, points
from network_world import PATIENCE, inside, namespaces, ping, until

#: qemu.qmp leaves sockets of conversations that failed to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_NAME = "uktest"


def network(directory: str, *, plugin: str, subnet: str, **more: object) -> str:
    """A network's configuration in a file, with address management of its own."""
    ranges = {"ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    first = {"type": plugin, "ipam": {"type": "host-local", "dataDir": f"{directory}/leases", **ranges}, **more}
    plugins = [first, {"type": "portmap", "capabilities": {"portMappings": True}}]
    path = os.path.join(directory, "net.conflist")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"cniVersion": "1.0.0", "name": _NAME, "plugins": plugins}, file)
    return path


def leases(directory: str) -> list[str]:
    """The addresses that are given out."""
    path = os.path.join(directory, "leases", _NAME)
    names = os.listdir(path) if os.path.isdir(path) else []
    return [name for name in names if name[0].isdigit()]


class _Inside(Cli):
    """Commands whose keeper, bridges and firewall are in a namespace."""

    namespace = ""

    def run(self, *words: str, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["nsenter", f"--net={self.namespace}", *PROGRAM, *words],
            input=stdin or b"",
            capture_output=True,
            env={**self.environment, **environment},
            timeout=LIMIT,
        )


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Inside]:
    directory = str(tmp_path_factory.mktemp("cni"))
    with namespaces(directory, "host") as (host,):
        found = _Inside(directory)
        found.namespace = host
        found.good("image", "load", sample("nginx"))
        yield found
        assert found.leftovers() == []


def test_a_guest_answers_at_its_own_address_and_at_a_published_port(cli: _Inside) -> None:
    host, directory = cli.namespace, cli.directory
    path = network(
        directory, plugin="bridge", subnet="10.88.7.0/24", bridge="ukb0", isGateway=True, ipMasq=True, mtu=1420
    )
    cli.good("run", "-d", "--name", "web", "--net", path, "-p", "8080:80", "nginx")
    shown = cli.json("inspect", "web")[0]["monitor"]["network"]
    address = shown["address"]
    assert (leases(directory), shown["gateway"], shown["mtu"]) == ([address], "10.88.7.1", 1420)
    assert ping(host, address)
    for url in (f"http://{address}/", "http://10.88.7.1:8080/"):
        until(lambda url=url: "unikernel" in fetch(host, url), f"nginx answers at {url}")  # type: ignore[misc]  # bound now
    assert "kind=cni" in cli.good("timeline", "web")
    if LONG:  # It is replaced: the next run has a namespace and an address of its own.
        cli.good("stop", "-t", "0", "web")
        assert leases(directory) == []
        cli.good("start", "web")
        (again,) = leases(directory)
        assert ping(host, again)
    cli.good("rm", "-f", "web")
    assert leases(directory) == []
    assert "veth" not in inside(host, "ip", "-brief", "link")
    assert "10.88.7" not in inside(host, "iptables", "-t", "nat", "-S")


def fetch(path: str, url: str) -> str:
    """What an HTTP server answers in a namespace; empty: nothing yet."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", "curl", "-s", "-m", "5", url], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout


def test_a_network_that_cannot_be_is_a_sentence(cli: _Inside) -> None:
    directory = cli.directory
    assert "does not exist" in cli.bad("run", "--net", f"{directory}/missing.conflist", "nginx")[1]
    assert "there is no network 'nonsense'" in cli.bad("run", "--net", "nonsense", "nginx")[1]
    path = network(directory, plugin="no-such-plugin", subnet="10.88.8.0/24")
    assert "the CNI plugin no-such-plugin is not in" in cli.bad("run", "--net", path, "nginx")[1]
    path = network(directory, plugin="bridge", subnet="10.88.8.0/24", bridge="ukb1", mtu="nonsense")
    code, text = cli.bad("run", "-d", "--net", path, "nginx")
    assert code
    assert f"the CNI plugin bridge of network {_NAME} failed (ADD)" in text
    assert (leases(directory), cli.json("ps", "-a", "--json")) == ([], [])


# -- kill -9 -------------------------------------------------------------------------------------------------------------

_LIFE = ("image=hello", "create=c", "ready=c", "wait=c", "remove=c")
_PART = frozenset({"network.added", "network.deleted"})


def test_the_command_is_killed(tmp_path: Path) -> None:
    """At whatever step of making and undoing the network: the next command undoes the rest, the addresses among it."""
    directory = str(tmp_path)
    stage = Stage(directory)
    baseline = stage.warm_up("cache", "copy")
    path = network(directory, plugin="ptp", subnet="10.254.77.0/28")
    life = ("args=exit=0", f"net={path}", *_LIFE)
    passed = [point for point in points(stage, *life) if point.startswith("network.")]
    assert set(passed) > _PART
    for point in passed if LONG else sorted(_PART):
        kill_command_at(stage, point, *life)
        with stage.engine() as engine:
            for container in engine.containers(everything=True):
                stage.idents.append(container.id)
                container.remove(force=True)
        assert baseline.leftovers(stage.idents) == [], point
        assert leases(directory) == [], point


@pytest.mark.long
def test_a_plugin_that_cannot_undo_is_asked_again(tmp_path: Path) -> None:
    """The container ends and goes nevertheless; its network's record stays until the plugin has done its work."""
    directory = str(tmp_path)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("ptp", "host-local", "portmap"):
        (plugins / name).symlink_to(f"/usr/lib/cni/{name}")
    stage = Stage(directory, config=f'[network]\ncni_plugins = "{plugins}"\n')
    path = network(directory, plugin="ptp", subnet="10.254.78.0/28")
    with stage.engine() as engine:
        container = engine.create("hello", options(network=path, args=("exit=0",)))
        container.start(ready="first-output")
        (plugins / "portmap").rename(plugins / "away")
        container.wait()
        container.remove()
        assert any("is not released yet" in notice for notice in stage.notices)
        assert len(leases(directory)) <= 1
    (plugins / "away").rename(plugins / "portmap")
    with stage.engine() as engine:
        assert engine.containers(everything=True) == []
        assert leases(directory) == []
        assert engine.services.database.query("SELECT container FROM network_attachments") == []
