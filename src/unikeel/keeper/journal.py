"""A connection's state in shared memory, so that a keeper that is killed at any instruction leaves nothing in doubt.

The memory is a memfd in the service manager's store. It has two places for the whole state, of which one byte tells the valid one, and for each
socket of the connection the outcome of its last transfer: bytes are received straight into the memory, and the kernel itself notes there how many
were received or sent (``recvmmsg`` and ``sendmmsg`` do). Two generation numbers tell whether the valid state has seen that transfer yet.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import sys
from typing import Final

from unikeel.keeper.wire import Json

#: The most that is received at once.
CHUNK: Final = 64 * 1024
_PORT: Final = 256
_RECEIVE, _SEND = 64, 160
_PLACES: Final = (1 << 32, 2 << 32)
_LARGE: Final = 64 * 1024
_LENGTHS: Final = struct.Struct("=QI")
_PUNCH: Final = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

#: What a state is: values, and strings of bytes beside them.
State = tuple[dict[str, Json], list[bytes]]


class Journal:
    """The memory of one connection with ``ports`` sockets. ``fd`` is the memfd; one that is given is looked into, else one is made."""

    def __init__(self, ports: int, fd: int = -1) -> None:
        self._ports = ports
        self._head = -(-(_PORT * (ports + 1)) // mmap.PAGESIZE) * mmap.PAGESIZE
        size = self._head + ports * CHUNK
        self.fd = fd if fd >= 0 else os.memfd_create("unikeel-connection", os.MFD_CLOEXEC)
        if fd < 0:
            os.ftruncate(self.fd, size)
        elif os.fstat(fd).st_size < size:
            raise ValueError("what the service manager kept of a connection is cut short")
        self._memory = mmap.mmap(self.fd, size)
        self._sizes = [0, 0]
        self._committed = self._generations()

    def _generations(self) -> bytes:
        return b"".join(self._memory[self._at(port) : self._at(port) + 2] for port in range(self._ports))

    @staticmethod
    def _at(port: int) -> int:
        return _PORT * (port + 1)

    # -- the state -------------------------------------------------------------------------------------------------

    def commit(self, values: dict[str, Json], pieces: list[bytes]) -> None:
        """Make this the state. It has seen all transfers until now."""
        generations = self._generations()
        text = json.dumps({**values, "pieces": [len(piece) for piece in pieces]}).encode()
        data = b"".join((generations, text, *pieces))
        old = self._memory[0]
        place = 1 - old
        os.pwrite(self.fd, _LENGTHS.pack(len(data), len(text)) + data, _PLACES[place])
        self._sizes[place] = len(data)
        self._memory[0] = place
        self._committed = generations
        if self._sizes[old] > _LARGE:
            _libc.fallocate(self.fd, _PUNCH, _PLACES[old], self._sizes[old] + _LENGTHS.size)
            self._sizes[old] = 0

    @property
    def behind(self) -> bool:
        """Whether something was transferred that the state has not seen."""
        return self._generations() != self._committed

    def recover(self) -> State:
        """The state that was committed last. :raise ValueError: there is none."""
        place = _PLACES[self._memory[0] & 1]
        head = os.pread(self.fd, _LENGTHS.size, place)
        if len(head) != _LENGTHS.size:
            raise ValueError("the service manager kept nothing of a connection")
        length, text = _LENGTHS.unpack(head)
        data = os.pread(self.fd, length, place + _LENGTHS.size)
        if len(data) != length:
            raise ValueError("what the service manager kept of a connection is cut short")
        self._sizes[self._memory[0] & 1] = length
        at = 2 * self._ports
        self._committed = data[:at]
        values = json.loads(data[at : at + text])
        at += text
        pieces = []
        for size in values.pop("pieces"):
            pieces.append(data[at : at + size])
            at += size
        return values, pieces

    def unseen(self, port: int) -> tuple[bytes, int]:
        """After :meth:`recover`: what was received on a socket, and how much was sent, that the state has not seen."""
        at = self._at(port)
        incoming, sent = b"", 0
        if self._memory[at] != self._committed[2 * port]:
            start = self._head + port * CHUNK
            incoming = self._memory[start : start + self._noted(at + _RECEIVE)]
        if self._memory[at + 1] != self._committed[2 * port + 1]:
            sent = self._noted(at + _SEND)
        return incoming, sent

    def _noted(self, at: int) -> int:
        """What the kernel noted in a header."""
        start = at + _Header.length.offset
        return int.from_bytes(self._memory[start : start + 4], sys.byteorder)

    # -- transfers -------------------------------------------------------------------------------------------------

    def receive(self, port: int, sock: socket.socket) -> bytes:
        """As ``recv``. The state must be committed before the next one. :raise OSError: as ``recv``."""
        start = self._head + port * CHUNK
        area = ctypes.c_char.from_buffer(self._memory, start)
        self._transfer(port, 0, _RECEIVE, ctypes.addressof(area), CHUNK, sock)
        length = self._noted(self._at(port) + _RECEIVE)
        return self._memory[start : start + length]

    def send(self, port: int, sock: socket.socket, data: bytes) -> int:
        """As ``send``. The state must be committed, with this data to be sent, before each. :raise OSError: as ``send``."""
        area = ctypes.c_char_p(data)
        self._transfer(port, 1, _SEND, ctypes.cast(area, ctypes.c_void_p).value or 0, len(data), sock)
        return self._noted(self._at(port) + _SEND)

    def _transfer(self, port: int, which: int, where: int, address: int, size: int, sock: socket.socket) -> None:
        at = self._at(port)
        piece = _Piece(address, size)
        header = _Header.from_buffer(self._memory, at + where)
        header.message = _Message(pieces=ctypes.addressof(piece), count=1)
        header.length = 0
        self._memory[at + which] = (self._memory[at + which] + 1) & 0xFF
        function = _libc.sendmmsg if which else _libc.recvmmsg
        flags = socket.MSG_DONTWAIT | (socket.MSG_NOSIGNAL if which else 0)
        result = function(sock.fileno(), ctypes.byref(header), 1, flags, None)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number)) if number != errno.EINTR else BlockingIOError(number, "")

    def close(self) -> None:
        """Let go of the memory. Closing twice is fine."""
        if self.fd >= 0:
            self._memory.close()
            os.close(self.fd)
            self.fd = -1
