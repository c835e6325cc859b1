"""The ttrpc server: the rules of the protocol, over real sockets; whatever a peer sends, the server goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttrpc_service import NAME, Answer, Raw, Service, raw, request, run, serving
from unikeel.containerd.wire import ttrpc_pb2
from unikeel.errors import Unavailable
from unikeel.shim import frames
from unikeel.shim.server import STREAMS, Server, serve


async def _alive(peer: Raw, stream: int) -> None:
    peer.writer.write(request(stream, name="alive"))
    assert await peer.answer() == (stream, 0, "", Answer(id="alive", exec_id="ns").SerializeToString())


def test_a_call_is_answered_and_its_handler_is_told_everything() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as peer:
            await _alive(peer, 1)
            call = service.calls[0]
            assert (call.stream, call.listener, call.namespace, call.deadline) == (1, "here", "ns", None)
            assert (call.attempt, call.metadata) == (0, {"containerd-namespace-ttrpc": "ns"})

    run(test)


def test_who_waits_blocks_nobody() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as peer:
            peer.writer.write(request(1, "Wait") + request(3) + request(5))
            assert [(await peer.answer())[0] for _ in range(2)] == [3, 5]
            service.release.set()
            assert (await peer.answer())[:2] == (1, 0)

    run(test)


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (request(2), 3, "is not odd"),
        (request(0), 3, "is not odd"),
        (request(11, "Nothing"), 12, "has no method 'Nothing'"),
        (request(11, service="no.Such"), 12, "there is no service 'no.Such'"),
        (frames.pack(11, frames.REQUEST, b"\xff\xff\xff"), 3, "the request is malformed"),
        (
            frames.pack(
                11,
                frames.REQUEST,
                ttrpc_pb2.Request(service=NAME, method="Echo", payload=b"\x0a\x7f").SerializeToString(),
            ),
            3,
            "the request of test.Service/Echo is malformed",
        ),
        (request(11, "Missing"), 5, "there is no task x (look at ctr tasks ls)"),
        (request(11, "Large"), 8, "is more than ttrpc's limit"),
        (frames.HEADER.pack(frames.LARGEST + 1, 11, 1, 0) + bytes(frames.LARGEST + 1), 8, "is more than ttrpc's limit"),
        (request(11, "Wait", timeout_ns=1_000_000), 4, "test.Service/Wait was not done within 0.001 s"),
    ],
)
def test_what_is_wrong_is_answered_on_its_stream(frame: bytes, code: int, words: str) -> None:
    async def test() -> None:
        async with serving() as (_, path), raw(path) as peer:
            await _alive(peer, 1)
            peer.writer.write(frame)
            stream, found, message, payload = await peer.answer()
            assert (stream, found, payload) == (frames.HEADER.unpack_from(frame)[1], code, b"")
            assert words in message
            await _alive(peer, 13)

    run(test)


def test_numbers_of_streams_must_increase() -> None:
    async def test() -> None:
        async with serving() as (_, path), raw(path) as peer:
            await _alive(peer, 5)
            peer.writer.write(request(5) + request(3))
            assert [(await peer.answer())[:2] for _ in range(2)] == [(5, 3), (3, 3)]
            await _alive(peer, 7)

    run(test)


def test_a_mistake_of_ours_is_a_sentence_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving() as (_, path), raw(path) as peer:
            for stream, method in ((1, "Broken"), (3, "Nonsense")):
                peer.writer.write(request(stream, method))
                _, code, message, _ = await peer.answer()
                assert code == 13
                assert "secret" not in message
                assert "Traceback" not in message
            await _alive(peer, 5)

    with caplog.at_level(logging.ERROR, "unikeel.shim"):
        run(test)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_what_no_unary_peer_sends_is_passed_over() -> None:
    async def test() -> None:
        async with serving() as (_, path), raw(path) as peer:
            peer.writer.write(frames.pack(1, frames.DATA, b"x", 5) + frames.pack(3, frames.RESPONSE, b"x"))
            peer.writer.write(frames.pack(5, 77, b"x"))
            await _alive(peer, 1)

    run(test)


def test_there_is_a_limit_of_unanswered_requests() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as peer:
            peer.writer.write(b"".join(request(1 + 2 * number, "Wait") for number in range(STREAMS + 1)))
            stream, code, message, _ = await peer.answer()
            assert (stream, code) == (1 + 2 * STREAMS, 8)
            assert "unanswered" in message
            service.release.set()
            assert {(await peer.answer())[1] for _ in range(STREAMS)} == {0}
            await _alive(peer, 3 + 2 * STREAMS)

    run(test)


def test_at_its_deadline_a_call_is_answered_and_its_handler_cancelled() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as peer:
            peer.writer.write(request(1, "Wait", timeout_ns=50_000_000))
            assert (await peer.answer())[:2] == (1, 4)
            await asyncio.sleep(0)
            assert service.cancelled == [1]
            assert service.calls[0].deadline is not None

    run(test)


def test_a_client_that_goes_away_harms_nobody_and_its_calls_end() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as other:
            for cut in (3, 12, len(request(3)) - 1):
                async with raw(path) as peer:
                    peer.writer.write(request(1, "Wait") + request(3)[:cut])
                    await peer.writer.drain()
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert service.cancelled == [1, 1, 1]
            await _alive(other, 1)

    run(test)


def test_answers_to_a_client_that_does_not_read_are_not_piled_up() -> None:
    async def test() -> None:
        async with serving() as (service, path), raw(path) as peer:
            frame = request(1, name="x" * 100_000)
            sent = 0
            for number in range(400):
                peer.writer.write(frames.HEADER.pack(len(frame) - 10, 1 + 2 * number, 1, 0) + frame[10:])
                sent += 1
            await asyncio.sleep(0.3)
            assert len(service.calls) < sent
            for number in range(sent):
                assert (await peer.answer())[:2] == (1 + 2 * number, 0)

    run(test)


def test_a_frame_s_age_counts_against_its_time_out() -> None:
    async def test() -> None:
        service, sent = Service(), list[bytes]()
        connection = service.server().open(7, "link", sent.append)
        connection.frame(request(1, timeout_ns=10**9), age_ns=2 * 10**9)
        await asyncio.sleep(0)
        found = ttrpc_pb2.Response.FromString(sent.pop()[frames.HEADER.size :])
        assert found.status.code == 4
        connection.frame(request(3, timeout_ns=10**9), age_ns=10**8, attempt=2)
        await asyncio.sleep(0)
        assert ttrpc_pb2.Response.FromString(sent.pop()[frames.HEADER.size :]).status.code == 0
        assert (service.calls[0].connection, service.calls[0].attempt) == (7, 2)

    run(test)


def test_a_handler_may_say_that_it_only_waits() -> None:
    async def test() -> None:
        parked: list[tuple[int, int]] = []
        connection = Service().server().open(7, "link", lambda _: None, lambda *where: parked.append(where))
        connection.frame(request(9, "Park"))
        await asyncio.sleep(0)
        assert parked == [(7, 9)]

    run(test)


def test_after_its_end_a_connection_sends_nothing() -> None:
    async def test() -> None:
        service, sent = Service(), list[bytes]()
        connection = service.server().open(1, "link", sent.append)
        connection.frame(request(1, "Wait"))
        await asyncio.sleep(0)
        connection.close()
        connection.frame(request(3))
        await asyncio.sleep(0)
        assert (service.cancelled, sent) == ([1], [])

    run(test)


def test_strangers_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving() as (service, path):
            monkeypatch.setattr("unikeel.shim.server._TRUSTED", (os.geteuid() + 1,))
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request(1))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            assert service.calls == []

    run(test)


def test_the_socket_is_ours_alone_and_replaces_a_stale_one(tmp_path: object) -> None:
    async def test() -> None:
        path = f"{tmp_path}/socket"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        listening = await serve(Server({}), path)
        assert os.stat(path).st_mode & 0o777 == 0o600
        listening.close()
        with pytest.raises(Unavailable, match="cannot listen at"):
            await serve(Server({}), f"{tmp_path}/nothing/socket")

    run(test)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                frames.pack,
                st.integers(0, 40),
                st.integers(0, 4),
                st.binary(max_size=30),
            ),
            st.builds(
                lambda stream, method, name, timeout: request(stream, method, name, timeout_ns=timeout),
                st.integers(0, 40),
                st.sampled_from(["Echo", "Wait", "Missing", "Broken", "Park", "?"]),
                st.text(max_size=5),
                st.integers(-5, 5),
            ),
        ),
        max_size=20,
    )
)
def test_whatever_is_sent_the_server_goes_on(pieces: list[bytes]) -> None:
    async def test() -> None:
        async with serving() as (_, path):
            async with raw(path) as peer:
                peer.writer.write(b"".join(pieces))
                await asyncio.sleep(0)
            async with raw(path) as peer:
                await _alive(peer, 1)

    logging.getLogger("unikeel.shim").disabled = True
    try:
        run(test)
    finally:
        logging.getLogger("unikeel.shim").disabled = False
