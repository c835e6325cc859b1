"""One connection to the keeper, from the side of a command."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from types import TracebackType

from unikeel.errors import DeadlineExceeded, Internal, Unavailable
from unikeel.keeper import wire
from unikeel.lean import Final, Self, socket

SECONDS: Final = 30.0


class Connection:
    """One connection: requests and answers in turn. ``raise Unavailable`` when the keeper goes away under it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.settimeout(SECONDS)

    def fileno(self) -> int:
        """For poll: readable when an event has come."""
        return self._socket.fileno()

    @property
    def gone(self) -> bool:
        """Whether the keeper has closed the connection, between a request's answer and the next request."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def call(self, message: wire.Message, fds: Sequence[int] = (), seconds: float = SECONDS) -> wire.Message:
        """One request and its answer, without descriptors in the answer."""
        answer, received = self.call_with_fds(message, fds, seconds)
        for fd in received:
            os.close(fd)
        return answer

    def call_with_fds(
        self, message: wire.Message, fds: Sequence[int] = (), seconds: float = SECONDS
    ) -> tuple[wire.Message, list[int]]:
        """One request and its answer with the descriptors that came along, which are now the caller's."""
        try:
            self._socket.settimeout(seconds)
            wire.send(self._socket, message, tuple(fds))
            answer, received = wire.receive(self._socket)
        except TimeoutError:
            self.close()  # as below
            raise DeadlineExceeded(f"the keeper did not answer {message.get('op')!r} in {seconds:.0f} s") from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"the keeper is gone: {error}", "run the command again") from error
        except BaseException:
            self.close()  # its answer may still come: nobody is to take it for that of another request, nor a launch for wanted
            raise
        if answer is None:
            raise Unavailable("the keeper is gone: it closed the connection", "run the command again")
        if "error" in answer:
            raise Internal(f"the keeper refused {message.get('op')!r}: {answer['error']}")
        return answer, received

    def event(self, seconds: float | None) -> wire.Message | None:
        """The next event after ``watch``; ``None`` when the time is up. :raise Unavailable: the keeper is gone."""
        self._socket.settimeout(seconds)
        try:
            message, fds = wire.receive(self._socket)
        except TimeoutError:
            return None
        except (OSError, ValueError) as error:
            raise Unavailable(f"the keeper is gone: {error}") from error
        for fd in fds:
            os.close(fd)
        if message is None:
            raise Unavailable("the keeper is gone: it closed the connection")
        return message

    def close(self) -> None:
        """Close; the keeper forgets what was watched on it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
