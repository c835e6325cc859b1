"""Published ports on the command line, with the sample that has a network: no guest needs to boot for these."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cli_world import Cli, world


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with world(str(tmp_path_factory.mktemp("ports")), "nginx") as found:
        yield found


def test_a_port_in_use_fails_the_start_and_leaves_nothing(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = cli.bad("run", "-d", "-p", f"127.0.0.1:{port}:80", "nginx")
    assert code == 73
    assert f"port {port}/tcp of 127.0.0.1 is in use on this host" in text
    assert cli.json("ps", "-a", "--json") == []


def test_a_port_in_use_leaves_a_created_container_as_it_was(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cli.good("create", "--name", "web", "-p", f"127.0.0.1:{port}:80", "nginx")
        assert cli.bad("start", "web")[0] == 73
    (found,) = cli.json("ps", "-a", "--json")
    assert found["state"] == "created"
    assert found["ports"] == [{"address": "127.0.0.1", "host": port, "guest": 80, "protocol": "tcp"}]
    assert f"127.0.0.1:{port}->80/tcp" in cli.good("ps", "-a")
    cli.good("rm", "web")


def test_ports_without_a_network_are_refused(cli: Cli) -> None:
    code, text = cli.bad("run", "--net", "none", "-p", "8080:80", "nginx")
    assert code == 2
    assert "ports can be published only with a network" in text
