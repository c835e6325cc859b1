"""A daemon for the keeper's tests: speaks the link on descriptor 3, does what a request's body says, and writes down what it hears.

Bodies: ``echo TEXT``; ``count`` (answers the attempt and the age); ``die N`` (dies while the attempt is less than N); ``park`` and ``hold`` (answered
by the next ``wake``, the first says that it only waits); ``big N`` (answers N bytes); ``close``; ``environment NAME``. A file ``broken`` beside its
log makes it die at once, ``deaf`` makes it never serve, ``stubborn`` makes it ignore SIGTERM and the link's end.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time

_HEAD = struct.Struct(">IBQ")
_FRAME = struct.Struct(">IIBB")


class Daemon:
    """One life of it."""

    def __init__(self, directory: str) -> None:
        self.link = socket.socket(fileno=3)
        self.log = os.open(f"{directory}/heard", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.waiting: list[tuple[int, int]] = []

    def say(self, kind: int, number: int, body: bytes) -> None:
        self.link.sendall(_HEAD.pack(len(body), kind, number) + body)

    def answer(self, number: int, stream: int, body: bytes) -> None:
        self.say(2, number, _FRAME.pack(len(body), stream, 2, 0) + body)

    def note(self, text: str) -> None:
        os.write(self.log, f"{text}\n".encode())

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.link.recv(min(1 << 20, size - len(data)))
            if not piece:
                self.note("end")
                os._exit(0)
            data += piece
        return bytes(data)

    def turn(self) -> None:
        length, kind, number = _HEAD.unpack(self.read(_HEAD.size))
        body = self.read(length)
        if kind == 1:
            self.note(f"open {number:x} {body.decode()}")
        elif kind == 3:
            self.note(f"close {number:x}")
        else:
            age, attempt = struct.unpack_from(">qB", body)
            size, stream, what, _ = _FRAME.unpack_from(body, 9)
            assert size == len(body) - 19
            if what == 1:
                self.request(number, stream, body[19:], attempt, age)

    def request(self, number: int, stream: int, body: bytes, attempt: int, age: int) -> None:
        word, _, rest = body.partition(b" ")
        self.note(f"request {stream} {attempt} {body[:60].decode(errors='replace')}")
        if word == b"count":
            self.answer(number, stream, f"{attempt} {age}".encode())
        elif word == b"die" and attempt < int(rest):
            os._exit(7)
        elif word in (b"park", b"hold"):
            self.waiting.append((number, stream))
            if word == b"park":
                self.say(4, number, struct.pack(">I", stream))
        elif word == b"wake":
            for waiter in self.waiting:
                self.answer(*waiter, b"woken")
            self.waiting.clear()
            self.answer(number, stream, b"")
        elif word == b"big":
            self.answer(number, stream, b"x" * int(rest))
        elif word == b"close":
            self.answer(number, stream, b"bye")
            self.say(3, number, b"")
        elif word == b"environment":
            self.answer(number, stream, os.environ.get(rest.decode(), "-").encode())
        else:
            self.answer(number, stream, body)


def main() -> None:
    directory = sys.argv[1]
    print(f"daemon {os.getpid()} begins", flush=True)
    if os.path.exists(f"{directory}/broken"):
        sys.exit("broken")
    daemon = Daemon(directory)
    if os.path.exists(f"{directory}/stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        daemon.say(5, 0, b"")
        time.sleep(100)
    if not os.path.exists(f"{directory}/deaf"):
        daemon.say(5, 0, b"")
    while True:
        daemon.turn()


if __name__ == "__main__":
    main()
