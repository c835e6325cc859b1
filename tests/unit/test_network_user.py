"""What ``-p`` says, and the network helper's command line."""

from __future__ import annotations

import ipaddress
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import AlreadyExists, InvalidArgument
from unikeel.model.plan import UserNet
from unikeel.network import ports, user
from unikeel.network.ports import Port

_NET = UserNet("10.0.2.15", 24, "10.0.2.2", "10.0.2.3", "52:54:00:00:00:01")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80", Port("", 8080, 80, "tcp")),
        ("8080:80/tcp", Port("", 8080, 80, "tcp")),
        ("53:53/udp", Port("", 53, 53, "udp")),
        ("127.0.0.1:1:65535", Port("127.0.0.1", 1, 65535, "tcp")),
    ],
)
def test_ports(text: str, port: Port) -> None:
    assert ports.parse(text) == port


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "80:",
        ":80",
        "a:b",
        "0:80",
        "80:65536",
        "80:80/sctp",
        "80:80/",
        "localhost:80:80",
        "[::1]:80:80",
        "1.2.3:80:80",
        "٣:80",
    ],
)
def test_wrong_ports(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ports.parse(text)


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]), st.ip_addresses(v=4))
def test_every_port_is_read_back(host: int, guest: int, protocol: str, address: ipaddress.IPv4Address) -> None:
    text = f"{address}:{host}:{guest}/{protocol}"
    assert ports.parse(text) == Port(str(address), host, guest, protocol)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        port = ports.parse(text)
    except InvalidArgument:
        return
    assert 1 <= port.host <= 65535
    assert 1 <= port.guest <= 65535


def test_busy_and_double_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(AlreadyExists, match=str(number)):
            ports.check_free((Port("127.0.0.1", number, 80, "tcp"),))
    ports.check_free((Port("127.0.0.1", number, 80, "tcp"),))
    with pytest.raises(InvalidArgument, match="twice"):
        ports.check_free((Port("", number, 80, "tcp"), Port("", number, 81, "tcp")))
    with pytest.raises(InvalidArgument, match="192.0.2.1"):
        ports.check_free((Port("192.0.2.1", number, 80, "tcp"),))


def test_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = Port("127.0.0.1", server.getsockname()[1], 80, "tcp")
        assert user.serves((port,), os.getpid())
        assert not user.serves((port,), os.getppid())
        assert not user.serves((port._replace(protocol="udp"),), os.getpid())
    assert not user.serves((port,), os.getpid())
    assert not user.serves((port,), 2**22 + 1)


@given(st.integers(0, 32))
def test_masks(prefix: int) -> None:
    assert UserNet("", prefix, "", "", "").netmask == str(ipaddress.IPv4Network(f"0.0.0.0/{prefix}").netmask)


def test_the_helpers_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "_has_default_route", lambda: True)
    published = (Port("", 8080, 80, "tcp"), Port("127.0.0.1", 8443, 443, "tcp"), Port("", 53, 5353, "udp"))
    assert user.helper_argv("/usr/bin/passt", _NET, published, 2000000001) == [
        *("/usr/bin/passt", "--foreground", "--quiet", "--fd", "3", "--runas", "2000000001:2000000001"),
        *(
            "--ipv4-only",
            "--no-map-gw",
            "--address",
            "10.0.2.15",
            "--netmask",
            "255.255.255.0",
            "--gateway",
            "10.0.2.2",
        ),
        *("--mac-addr", "52:55:0a:00:02:02", "--no-dhcp-search", "--search", "none"),
        *("--dns", "10.0.2.3", "--dns-forward", "10.0.2.3"),
        *("--tcp-ports", "8080:80", "--tcp-ports", "127.0.0.1/8443:443", "--udp-ports", "53:5353"),
    ]
    monkeypatch.setattr(user, "_has_default_route", lambda: False)
    assert user.helper_argv("/p", _NET._replace(dns=""), (), 5)[-8:] == [
        *("--dns", "none", "--interface", "lo", "--tcp-ports", "none", "--udp-ports", "none"),
    ]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=5, unique=True))
def test_every_container_has_an_address_of_its_own(uids: list[int]) -> None:
    macs = {user.guest_mac(uid) for uid in uids}
    assert len(macs) == len(uids)
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
