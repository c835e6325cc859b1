"""Talking to Cloud Hypervisor over the unix socket that it inherited: its HTTP API, ``/api/v1`` (docs/api.md, cloud-hypervisor.yaml)."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time

from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.keeper.wire import short_path
from unikeel.lean import Final

_LONGEST: Final = 1 << 20
_LOOK_SECONDS: Final = 0.02
#: States of a machine whose processors do not run yet.
_BEFORE: Final = frozenset({"Created", ""})


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        with short_path(*os.path.split(self._path)) as short:
            self.sock.connect(short)


def request(path: str, method: str, action: str, seconds: float) -> bytes:
    """One request. :raise DeadlineExceeded: no answer in time. :raise Unavailable: it is gone, or refuses."""
    connection = _Connection(path, seconds)
    try:
        connection.request(method, f"/api/v1/{action}")
        response = connection.getresponse()
        body = response.read(_LONGEST)
    except TimeoutError:
        raise DeadlineExceeded(f"the monitor did not answer on its control socket in {seconds:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the monitor's control socket: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status >= 300:
        raise Unavailable(f"the monitor refuses {action}: {response.status} {body[:200].decode(errors='replace')}")
    return body


def status(path: str, seconds: float) -> str:
    """The machine's state once its processors have run: ``running``, ``shutdown``, ``paused``. Raises as :func:`request`."""
    deadline = time.monotonic() + seconds
    while True:
        state = _state(request(path, "GET", "vm.info", max(0.1, deadline - time.monotonic())))
        if state not in _BEFORE or time.monotonic() >= deadline:
            return state.lower() or "unknown"
        time.sleep(_LOOK_SECONDS)


def _state(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        raise Unavailable(f"the monitor's answer is not JSON: {body[:80]!r}") from None
    state = found.get("state") if isinstance(found, dict) else None
    return state if isinstance(state, str) else ""


def power_down(path: str, seconds: float) -> None:
    """Press the guest's power button. Raises as :func:`request`."""
    request(path, "PUT", "vm.power-button", seconds)


def quit_monitor(path: str, seconds: float) -> None:
    """Have it end, whatever the guest does. Raises as :func:`request`."""
    request(path, "PUT", "vmm.shutdown", seconds)
