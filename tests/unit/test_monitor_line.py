"""Short conversations with QEMU: all at once, matched by number, whatever else comes between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ttrpc_service import run
from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.sandbox import monitor_line

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
EVENT = b'{"event": "RESUME", "timestamp": {}}\r\n'


@asynccontextmanager
async def qemu(
    path: Path, replies: dict[str, object], *, before: bytes = GREETING, silent: str = ""
) -> AsyncIterator[list[str]]:
    """A monitor that answers from a table: a dict is returned, a text is an error, None ends the connection.

    :param silent: a command that an event follows, and no answer.
    """
    asked: list[str] = []
    writers: list[asyncio.StreamWriter] = []
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        serving.append(asyncio.current_task())
        writer.write(before)
        text = ""
        while data := await _read(reader):
            text += data.decode()
            while text:
                said, end = json.JSONDecoder().raw_decode(text)
                text = text[end:].lstrip()
                asked.append(said["execute"])
                if said["execute"] == "hang":
                    continue
                reply = replies.get(said["execute"], {})
                if reply is None:
                    writer.close()
                    return
                kind = "error" if isinstance(reply, str) else "return"
                value = {"class": "GenericError", "desc": reply} if kind == "error" else reply
                if said["execute"] == silent:
                    writer.write(EVENT)
                    continue
                event = EVENT if said["id"] and kind == "return" else b""
                writer.write(event + json.dumps({kind: value, "id": said["id"]}).encode() + b"\r\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    async with server:
        yield asked
    for writer in writers:
        writer.close()
    await asyncio.gather(*filter(None, serving), return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(4096)
    except ConnectionError:
        return b""


def test_a_guest_goes_and_its_state_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "qmp.sock"
        async with qemu(path, {"query-status": {"status": "running"}}, before=EVENT + GREETING) as asked:
            await monitor_line.go(str(path), 5.0)
            assert asked == ["qmp_capabilities", "cont"]
            assert await monitor_line.status(str(path), 5.0) == "running"
            assert await monitor_line.execute(str(path), 5.0, "stop") == {}

    run(test)


def test_a_guest_that_goes_is_told_by_the_event_if_no_answer_follows(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "qmp.sock"
        async with qemu(path, {}, silent="cont"):
            await monitor_line.go(str(path), 60.0)
            with pytest.raises(DeadlineExceeded):
                await monitor_line.execute(str(path), 0.05, "cont")

    run(test)


def test_what_goes_wrong_is_an_error_of_ours(tmp_path: Path) -> None:
    async def test() -> None:
        path = str(tmp_path / "qmp.sock")
        with pytest.raises(Unavailable, match="control socket"):
            await monitor_line.status(path, 5.0)
        async with qemu(tmp_path / "qmp.sock", {"cont": "no such guest", "stop": None}):
            with pytest.raises(Unavailable, match="no such guest"):
                await monitor_line.go(path, 5.0)
            with pytest.raises(Unavailable, match="closed"):
                await monitor_line.execute(path, 5.0, "stop")

    run(test)


@pytest.mark.parametrize("nonsense", [b"[]\n", b"{\n", b"x" * (2 << 20)])
def test_nonsense_is_no_answer(tmp_path: Path, nonsense: bytes) -> None:
    async def test() -> None:
        async with qemu(tmp_path / "qmp.sock", {}, before=nonsense):
            with pytest.raises(Unavailable):
                await monitor_line.go(str(tmp_path / "qmp.sock"), 5.0)

    run(test)


def test_it_waits_as_long_as_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with qemu(tmp_path / "qmp.sock", {}, before=b""):
            with pytest.raises(DeadlineExceeded, match="did not answer"):
                await monitor_line.execute(str(tmp_path / "qmp.sock"), 0.05, "hang")

    run(test)


def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    async def test() -> None:
        deep = tmp_path / ("d" * 100)
        short = tmp_path / "s"
        deep.mkdir()
        short.symlink_to(deep)
        async with qemu(short / "qmp.sock", {"query-status": {"status": "prelaunch"}}):
            assert await monitor_line.status(str(deep / "qmp.sock"), 5.0) == "prelaunch"

    run(test)
