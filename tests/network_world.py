"""Real network namespaces joined by a bridge, a stand-in for a guest that answers on a tap device, and pings from one to the other."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from unikeel.kernel import netns

#: Seconds for what is waited for: the machine may be busy.
PATIENCE: Final = 60
GATEWAY: Final = "10.9.0.1"
ADDRESS: Final = "10.9.0.2"
GATEWAY6: Final = "fd09::1"
ADDRESS6: Final = "fd09::2"
_VIRTIO: Final = 10


def inside(path: str, *words: str, stdin: str = "") -> str:
    """Run a program in a namespace; its output."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, (words, stdin, done.stderr)
    return done.stdout


@contextmanager
def namespaces(directory: str, *names: str) -> Iterator[tuple[str, ...]]:
    """New namespaces with nothing but a loopback; their paths."""
    paths = tuple(os.path.join(directory, name) for name in names)
    try:
        for path in paths:
            netns.make(path)
            with netns.open_network(path) as namespace:
                netns.within(namespace, netns.loopback_up)
        yield paths
    finally:
        for path in paths:
            netns.unmake(path)


@contextmanager
def pod_and_peer(directory: str) -> Iterator[tuple[str, str]]:
    """A namespace as a pod has it, and another one, whose bridge is its gateway."""
    with namespaces(directory, "pod", "peer") as (pod, peer):
        descriptor = os.open(pod, os.O_RDONLY)
        try:
            lines = [
                "link add br0 type bridge",
                f"addr add {GATEWAY}/24 dev br0",
                f"addr add {GATEWAY6}/64 dev br0 nodad",
                "link set br0 up",
                "link add p0 type veth peer name e0",
                "link set p0 master br0 up",
                f"link set e0 netns /proc/{os.getpid()}/fd/{descriptor}",
            ]
            inside(peer, "ip", "-batch", "-", stdin="\n".join(lines))
        finally:
            os.close(descriptor)
        lines = [
            "link set e0 up mtu 1400",
            f"addr add {ADDRESS}/24 dev e0",
            f"addr add {ADDRESS6}/64 dev e0 nodad",
            f"route add default via {GATEWAY}",
            f"route add default via {GATEWAY6}",
        ]
        inside(pod, "ip", "-batch", "-", stdin="\n".join(lines))
        yield pod, peer


def ping(path: str, address: str, seconds: float = PATIENCE) -> bool:
    """Whether an address answers ICMP's echo requests from a namespace before the time is up."""
    with netns.open_network(path) as namespace:
        return netns.within(namespace, lambda: _ping(address, seconds))


def _ping(address: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    number = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        while time.monotonic() < end:
            number += 1
            message = struct.pack(">BBHHH", 8, 0, 0, 77, number)
            sock.sendto(message[:2] + checksum(message) + message[4:], (address, 0))
            until = min(end, time.monotonic() + 0.5)
            while select.select([sock], [], [], max(0.0, until - time.monotonic()))[0]:
                answer = sock.recv(2048)[20:]
                if answer[:1] == b"\0" and answer[4:6] == struct.pack(">H", 77):
                    return True
    return False


def ping6(address: str, seconds: float = PATIENCE) -> bool:
    """The same of IPv6, from this process's namespace; the kernel adds checksums."""
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.getprotobyname("ipv6-icmp")) as sock:
        while time.monotonic() < end:
            sock.sendto(struct.pack(">BBHHH", 128, 0, 0, 77, 1), (address, 0))
            until = min(end, time.monotonic() + 0.5)
            while select.select([sock], [], [], max(0.0, until - time.monotonic()))[0]:
                if sock.recv(2048)[:1] == b"\x81":
                    return True
    return False


def checksum(data: bytes) -> bytes:
    """The Internet's checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def send_datagram(path: str, address: str, port: int) -> None:
    """Send a datagram from a namespace."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", (address, port))

    with netns.open_network(path) as namespace:
        netns.within(namespace, send)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something. Fails after :data:`PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)


class FakeGuest:
    """Answers ARP and echo requests on a tap's descriptor, and notes the ports of datagrams. A context manager."""

    def __init__(self, fd: int, address: str, mac: str) -> None:
        self._fd = fd
        self._address = socket.inet_aton(address)
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self.ports: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in readable:
                return
            frame = os.read(self._fd, 65536)[_VIRTIO:]
            answer = self._answer(frame)
            if answer:
                os.write(self._fd, bytes(_VIRTIO) + frame[6:12] + self._mac + frame[12:14] + answer)

    def _answer(self, frame: bytes) -> bytes:
        kind, packet = frame[12:14], frame[14:]
        if kind == b"\x08\x06" and packet[6:8] == b"\0\x01" and packet[24:28] == self._address:
            return packet[:6] + b"\0\x02" + self._mac + self._address + packet[8:18]
        if kind == b"\x08\0" and packet[9] == 17:
            self.ports.add(int.from_bytes(packet[22:24], "big"))
        if kind == b"\x08\0" and packet[9] == 1 and packet[20] == 8:
            return self._echo(packet)
        return b""

    @staticmethod
    def _echo(packet: bytes) -> bytes:
        head = packet[:8] + b"\x40\x01\0\0" + packet[16:20] + packet[12:16]
        body = b"\0\0\0\0" + packet[24 : int.from_bytes(packet[2:4], "big")]
        body += bytes(len(body) % 2)
        return head[:10] + checksum(head) + head[12:] + body[:2] + checksum(body) + body[4:]
