"""Metrics over HTTP: any request for ``/metrics`` gets them; the rest is not for us."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final

from unikeel.errors import Unavailable

_SECONDS: Final = 5.0
_LONGEST: Final = 8 << 10
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Text = Callable[[], Awaitable[str]]


async def _answer(text: Text, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer, and the end of the connection."""
    try:
        async with asyncio.timeout(_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            words = head.split(b"\r\n", 1)[0].split()
            if len(words) == 3 and words[0] in (b"GET", b"HEAD") and words[1].split(b"?")[0] == b"/metrics":
                body = (await text()).encode()
                status, kind = "200 OK", _TYPE
            else:
                body, status, kind = b"only /metrics is here\n", "404 Not Found", "text/plain; charset=utf-8"
            lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
            writer.write("\r\n".join((*lines, "", "")).encode())
            if words[:1] != [b"HEAD"]:
                writer.write(body)
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def export(text: Text, path: str, address: str) -> list[asyncio.Server]:
    """Serve at a socket (mode 0600), and at an address and port if one is given.

    :raise Unavailable: it cannot be listened there.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(text, reader, writer)

    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        servers = [await asyncio.start_unix_server(answer, path, limit=_LONGEST)]
    except OSError as error:
        raise Unavailable(f"metrics cannot be served at {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    if address:
        host, _, port = address.rpartition(":")
        try:
            servers.append(await asyncio.start_server(answer, host.strip("[]"), int(port), limit=_LONGEST))
        except (OSError, ValueError) as error:
            servers[0].close()
            raise Unavailable(f"metrics cannot be served at {address}: {error}") from None
    return servers
