"""Talking to monitors that are no QEMU: the requests that reach them, and what they answer."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.errors import DeadlineExceeded, InvalidArgument, Unavailable, Unimplemented
from unikeel.model.plan import Control
from unikeel.monitors.uml import DIRECTORY, NAME
from unikeel.records.owners import start_time
from unikeel.sandbox import controlling, http_api, mconsole
from unikeel.sandbox.lines import Line

SECONDS = 60.0


class Api(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A stand-in for Cloud Hypervisor's API: the paths and answers are those of its cloud-hypervisor.yaml."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.asked: list[str] = []
        self.states = ["Created", "Running"]
        self.refuse = False
        super().__init__(path, _Handler)

    def get_request(self) -> tuple[socket.socket, str]:
        request, _ = super().get_request()
        return request, "client"


class _Handler(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, Api)
        server.asked.append(f"{self.command} {self.path}")
        body = b""
        if self.path == "/api/v1/vm.info":
            state = server.states.pop(0) if len(server.states) > 1 else server.states[0]
            body = json.dumps({"config": {}, "state": state}).encode()
        self.send_response(500 if server.refuse else 200 if body else 204)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = _answer  # noqa: N815 - the names that the library looks for

    def log_message(self, *_args: object) -> None:
        return


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(str(tmp_path / "api.sock")) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_cloud_hypervisor_runs_when_it_says_so(api: Api, tmp_path: Path) -> None:
    assert controlling.status(Control.HTTP, str(tmp_path), SECONDS) == "running"
    assert api.asked == ["GET /api/v1/vm.info"] * 2


def test_cloud_hypervisors_power_button_and_end(api: Api, tmp_path: Path) -> None:
    line = Line(Control.HTTP, str(tmp_path))
    controlling.power_down(line, SECONDS)
    controlling.end(line, SECONDS)
    assert api.asked == ["PUT /api/v1/vm.power-button", "PUT /api/v1/vmm.shutdown"]


def test_a_refusal_says_what(api: Api, tmp_path: Path) -> None:
    api.refuse = True
    with pytest.raises(Unavailable, match="refuses vm.power-button: 500"):
        controlling.power_down(Line(Control.HTTP, str(tmp_path)), SECONDS)


def test_a_monitor_that_is_gone_or_silent(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    with pytest.raises(Unavailable, match="control socket"):
        http_api.status(path, 1.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(DeadlineExceeded, match="did not answer"):
            http_api.power_down(path, 0.05)


def test_what_can_only_be_killed_says_so(tmp_path: Path) -> None:
    assert controlling.status(Control.NONE, str(tmp_path), 1.0) == "running"
    for control in (Control.NONE, Control.MCONSOLE):
        with pytest.raises(Unimplemented):
            controlling.end(Line(control, str(tmp_path)), 1.0)
    with pytest.raises(Unimplemented):
        controlling.power_down(Line(Control.NONE, str(tmp_path)), 1.0)


def test_a_request_of_the_management_console() -> None:
    datagram = mconsole.encoded("cad")
    assert datagram[:12] == b"\xbe\xba\xfe\xca\x02\0\0\0\x03\0\0\0"
    assert datagram[12:] == b"cad" + bytes(509)
    with pytest.raises(InvalidArgument):
        mconsole.encoded("x" * 512)


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A datagram socket where a monitor in our own root would have its own."""
    place = tmp_path / NAME
    place.mkdir()
    monkeypatch.setattr(mconsole, "DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(place / "mconsole"))
        receiver.settimeout(SECONDS)
        yield receiver


def ours() -> Line:
    return Line(Control.MCONSOLE, "", os.getpid(), start_time(os.getpid()))


def test_the_power_button_of_user_mode_linux(console: socket.socket) -> None:
    controlling.power_down(ours(), SECONDS)
    assert console.recv(1024) == mconsole.encoded("cad")


def test_another_process_with_that_number_is_not_asked(console: socket.socket) -> None:
    line = ours()
    with pytest.raises(Unavailable, match="the monitor is gone"):
        mconsole.request(line._replace(start_time=line.start_time + 1), "cad", SECONDS)
    console.setblocking(False)
    with pytest.raises(BlockingIOError):
        console.recv(1)


@pytest.mark.usefixtures("console")
def test_what_a_guest_puts_there_instead_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path.parent / "elsewhere"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(str(target))
        path = tmp_path / NAME / "mconsole"
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(Unavailable, match="no management console"):
            mconsole.request(ours(), "cad", SECONDS)
        path.unlink()
        path.write_text("")
        with pytest.raises(Unavailable, match="no socket"):
            mconsole.request(ours(), "cad", SECONDS)
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.recv(1)
    assert DIRECTORY == "/tmp/uml"
