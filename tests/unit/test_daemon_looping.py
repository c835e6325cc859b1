"""The daemon's event loop asks the kernel less often, and starves nobody."""

from __future__ import annotations

import asyncio
import socket

from unikeel.daemon.looping import ROUNDS, SparingSelector, new_loop


def test_who_has_something_to_do_is_not_kept_from_it_for_long() -> None:
    selector = SparingSelector()
    ours, theirs = socket.socketpair()
    with selector, ours, theirs:
        selector.register(ours, 1, "ours")
        theirs.send(b"x")
        assert [selector.select(0) for _ in range(ROUNDS)] == [[]] * ROUNDS
        ((key, _),) = selector.select(0)
        assert key.data == "ours"
        assert selector.select(0) == []


def test_who_waits_is_told_at_once() -> None:
    selector = SparingSelector()
    ours, theirs = socket.socketpair()
    with selector, ours, theirs:
        selector.register(ours, 1)
        theirs.send(b"x")
        assert len(selector.select(None)) == len(selector.select(60)) == 1


def test_one_that_never_stops_does_not_keep_others_from_being_heard() -> None:
    async def test() -> None:
        heard = asyncio.Event()

        async def busy() -> None:
            while not heard.is_set():  # noqa: ASYNC110 - what comes back at once, again and again, is what is tried
                await asyncio.sleep(0)

        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            asyncio.get_running_loop().add_reader(ours.fileno(), heard.set)
            work = asyncio.get_running_loop().create_task(busy())
            theirs.send(b"x")
            await asyncio.wait_for(work, 60)
            asyncio.get_running_loop().remove_reader(ours.fileno())

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(test())
