"""Coverage-guided fuzzing of the ttrpc server: ``python tests/fuzz/fuzz_ttrpc.py -runs=20000``.

Needs atheris. Each input is what a peer sends over one connection, cut into pieces where its first bytes say. Any exception,
an answer that is no frame, a connection that does not go on, or a run of more than a few seconds is a finding.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile

import atheris  # type: ignore[import-untyped]  # it has no type hints

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

with atheris.instrument_imports(include=["unikeel.shim"]):
    from unikeel.shim import frames, server  # noqa: F401 - imported first here, instrumented

from ttrpc_service import Service, request
from unikeel.containerd.wire import ttrpc_pb2

SEEDS = {
    "echo": request(1) + request(3, "Wait") + request(5, "Missing"),
    "late": request(1, "Wait", timeout_ns=1),
    "wrong": request(2) + request(1, "?") + request(3, service="?") + frames.pack(5, frames.REQUEST, b"\xff"),
    "kinds": frames.pack(1, frames.DATA, b"x", 5) + frames.pack(3, frames.RESPONSE, b"") + frames.pack(5, 9, b"x"),
    "large": frames.HEADER.pack(frames.LARGEST + 1, 1, 1, 0) + b"x" * 40,
}
_LAST = (1 << 31) - 1


async def one_input(data: bytes) -> None:
    """Give the server what a peer sends; whether it still answers then."""
    service, sent = Service(), list[bytes]()
    connection = service.server().open(1, "fuzz", sent.append)
    cutter = frames.Cutter()
    at = 0
    for size in (*data[:8], len(data)):
        for frame in cutter.feed(data[8 + at : 8 + at + size]):
            connection.frame(frame, age_ns=size, attempt=size % 3)
        at += size
        await asyncio.sleep(0)
    before = len(sent)
    connection.frame(request(_LAST))
    for _ in range(3):
        await asyncio.sleep(0)
    if len(sent) == before:
        raise RuntimeError("the connection does not go on")
    for answer in sent:
        found = frames.unpack(answer)
        if found is None or found.kind != frames.RESPONSE or found.body is None:
            raise RuntimeError(f"{answer[:40]!r} is no answer")
        if b"Traceback" in ttrpc_pb2.Response.FromString(found.body).status.message.encode():
            raise RuntimeError("a traceback is told to strangers")
    connection.close()
    await asyncio.sleep(0)


def target(data: bytes) -> None:
    """What atheris calls."""
    LOOP.run_until_complete(one_input(data))


def main() -> None:
    """Fuzz with the arguments of libFuzzer; without a corpus directory, from seeds of our own."""
    logging.disable()
    with tempfile.TemporaryDirectory() as directory:
        for name, data in SEEDS.items():
            with open(f"{directory}/{name}", "wb") as file:
                file.write(bytes(8) + data)
        arguments = [*sys.argv, "-max_len=4096", "-timeout=20", "-rss_limit_mb=1024"]
        if not any(not argument.startswith("-") for argument in sys.argv[1:]):
            arguments.append(directory)
        atheris.Setup(arguments, target)
        atheris.Fuzz()


LOOP = asyncio.new_event_loop()

if __name__ == "__main__":
    main()
