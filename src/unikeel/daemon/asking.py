"""Asking the daemon of a state root something, from a command: one question over its control service, if there is a daemon."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from unikeel.errors import Unavailable

if TYPE_CHECKING:
    from unikeel.engine.layout import Layout

_SERVICE: Final = "unikeel.control.v1.Control"
_SECONDS: Final = 60.0


def ask(layout: Layout, method: str, document: dict[str, object] | None = None) -> Any:  # noqa: ANN401 - a JSON document
    """What the daemon answers; None if none listens. :raise UnikeelError: what it refuses, or that it does not answer in a minute."""
    path = os.path.join(layout.run, "daemon", "launch.sock")
    if not os.path.exists(path):
        return None
    import asyncio

    try:
        return asyncio.run(_ask(path, method, document or {}))
    except Unavailable:
        return None


async def _ask(path: str, method: str, document: dict[str, object]) -> Any:  # noqa: ANN401 - as above
    from unikeel.containerd.wire import control_pb2
    from unikeel.shim.client import Client

    request = control_pb2.ControlRequest(document=json.dumps(document))
    async with await Client.connect(path) as client:
        answer = await client.call(_SERVICE, method, request, control_pb2.ControlResponse, timeout=_SECONDS)
    return json.loads(answer.document)


__all__ = ["ask"]
