"""What the engine uses of the keeper: starts it when there is none, and asks it to hold, run and keep things."""

from __future__ import annotations

import os
import select
import time
from _thread import get_ident
from collections.abc import Iterable, Mapping, Sequence

from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.keeper import wire
from unikeel.keeper.connection import SECONDS, Connection
from unikeel.keeper.starter import KeeperSettings, Starter, become, new_socket
from unikeel.lean import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

_START_SECONDS: Final = 10.0
_BETWEEN_SECONDS: Final = 0.002
#: How many keepers a request sees killed before it gives up.
_REPLACED: Final = 4


class KeeperClient:
    """The keeper of one state root, as a command sees it. Threads may share it: each has a connection of its own."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._starter = Starter(settings)
        #: By thread. What a thread that has ended leaves is taken over by the next one of that number.
        self._connections: dict[int, Connection] = {}

    def start_early(self) -> bool:
        """Start the keeper if none lives, without waiting for it; returns whether this call started one."""
        return self._starter.start()

    def _try(self) -> Connection | None:
        sock = new_socket()
        sock.settimeout(SECONDS)
        try:
            with wire.short_path(self._settings.directory, "keeper.sock") as short:
                sock.connect(short)
        except TimeoutError:
            sock.close()
            raise DeadlineExceeded(f"the keeper did not take a connection in {SECONDS:.0f} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        return Connection(sock)

    def lives(self) -> bool:
        """Whether a keeper is there now (none is started)."""
        connection = self._try()
        if connection is None:
            return False
        with connection:
            try:
                connection.call({"op": "hello"})
            except Unavailable:
                return False
        return True

    def monitors(self) -> list[str]:
        """The containers whose monitors a living keeper keeps; none is started."""
        connection = self._try()
        if connection is None:
            return []
        with connection:
            try:
                kept = connection.call({"op": "hello"}).get("monitors")
            except Unavailable:
                return []
        return [str(ident) for ident in kept] if isinstance(kept, list) else []

    def connect(self) -> Connection:
        """A new connection to a living keeper, started if need be. A keeper that was just leaving, or is killed meanwhile, is replaced.

        :raise Unavailable: none can be started. :raise DeadlineExceeded: one lives and does not answer.
        """
        end = time.monotonic() + _START_SECONDS
        while True:
            self._starter.start()
            connection = self._try()
            if connection is not None:
                try:
                    connection.call({"op": "hello"})
                except DeadlineExceeded:
                    connection.close()
                    raise
                except Unavailable:
                    connection.close()
                else:
                    return connection
            if time.monotonic() >= end or not self._settings.starts:
                log = os.path.join(self._settings.directory, "keeper.log")
                what = "cannot be started" if self._settings.starts else "is gone"
                raise Unavailable(f"the keeper {what}", f"see {log}")
            # A dying process takes a moment to give up its lock; the kernel offers nothing to wait for here.
            select.select((), (), (), _BETWEEN_SECONDS)

    def watch(self, ident: str) -> tuple[Connection, bool]:
        """A new connection on which the end of a container's monitor is told, and whether the keeper keeps that monitor now.

        A keeper that is killed over it is replaced; the new one says that it does not keep the monitor, until it has adopted it.
        """
        for _ in range(_REPLACED):
            connection = self.connect()
            try:
                return connection, connection.call({"op": "watch", "id": ident}).get("running") is True
            except Unavailable:
                connection.close()
            except BaseException:
                connection.close()
                raise
        raise Unavailable(f"{_REPLACED} keepers were killed one after the other", "run the command again")

    def connection(self) -> Connection:
        """The connection that this thread uses for short requests."""
        shared = self._connections.get(get_ident())
        if shared is not None and shared.gone:
            self.disconnect()
            shared = None
        if shared is None:
            self._connections[get_ident()] = shared = self.connect()
        return shared

    def _request(self, message: wire.Message, fds: Sequence[int] = ()) -> tuple[wire.Message, list[int]]:
        """A request that may be repeated: should the keeper be killed over it, the next one gets it."""
        try:
            return self.connection().call_with_fds(message, fds)
        except DeadlineExceeded:
            self.disconnect()
            raise
        except Unavailable:
            self.disconnect()
            return self.connection().call_with_fds(message, fds)

    def ask(self, message: wire.Message) -> wire.Message:
        """A request that does no harm when it is repeated, and its answer. :raise Internal: the keeper refuses it."""
        answer, fds = self._request(message)
        for fd in fds:
            os.close(fd)
        return answer

    def disconnect(self) -> None:
        """Forget this thread's connection; its next request makes a new one."""
        shared = self._connections.pop(get_ident(), None)
        if shared is not None:
            shared.close()

    # -- held descriptors (the view holder of boot/) -------------------------------------------------------------

    def put(self, name: str, fd: int) -> None:
        """Have the keeper hold a copy of a descriptor under a name, in place of what it held there."""
        self._request({"op": "put", "name": name}, (fd,))

    def get(self, name: str) -> int | None:
        """A copy of the descriptor held under a name, now the caller's; ``None`` if there is none."""
        _, fds = self._request({"op": "get", "name": name})
        return fds[0] if fds else None

    def drop(self, name: str) -> None:
        """Let go of what is held under a name."""
        self._request({"op": "drop", "name": name})

    def names(self) -> list[str]:
        """The names of all that is held; empty without starting a keeper if none lives."""
        if get_ident() not in self._connections and not self.lives():
            return []
        answer, _ = self._request({"op": "names"})
        names = answer.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []

    # -- processes -----------------------------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        output: int,
        *,
        seconds: float = SECONDS,
        repeat: bool = False,
        same: bool = False,
        mark: str = "",
        fds: Sequence[int] = (),
        serves: tuple[str, str] | None = None,
    ) -> int:
        """Run a program as a child of the keeper to its end; its wait status. Output goes to the descriptor given.

        :param fds: it has these as 3, 4, …. :param serves: a container whose monitor cannot do without the process that the program leaves behind, and the file
            with that one's number.
        :param repeat: it does no harm to run it again, should the keeper be killed over it. :param same: only by the keeper that answered
            the last request. :param mark: the container that it is for.
        :raise Unavailable: the keeper was killed over it. :raise DeadlineExceeded: it did not end in time.
        """
        message: wire.Message = {"op": "spawn", "argv": list(argv), "mark": mark}
        if serves is not None:
            message["serves"], message["pid_file"] = serves
        shared = self._connections.get(get_ident())
        if same and (shared is None or shared.gone):
            self.disconnect()
            raise Unavailable("the keeper is gone: it was killed meanwhile", "run the command again")
        try:
            answer = self.connection().call(message, (*fds, output), seconds)
        except DeadlineExceeded:
            self.disconnect()
            raise
        except Unavailable:
            self.disconnect()
            if not repeat:
                raise
            answer = self.connection().call(message, (*fds, output), seconds)
        status = answer.get("status")
        return status if isinstance(status, int) else -1

    # -- of a keeper with a daemon -------------------------------------------------------------------------------

    def listen(self, name: str, path: str) -> None:
        """Have it listen there for the daemon, if it does not yet."""
        self._request({"op": "listen", "name": name, "path": path})

    def listener(self, name: str, path: str) -> socket.socket:
        """A socket that listens there, which the keeper holds for good; made if there is none yet. Who accepts on it is up to the caller."""
        import socket

        _, fds = self._request({"op": "listener", "name": f"held:{name}", "path": path})
        return socket.socket(fileno=fds[0])

    def waiting(self, name: str) -> list[socket.socket]:
        """Connections that came to it while nobody took them, the caller's from now on. After :meth:`listener` there come no more; the server's first
        settings of HTTP/2, empty ones, are sent already.
        """
        import socket

        found: list[socket.socket] = []
        try:
            while True:
                _, fds = self._request({"op": "waiting", "name": f"held:{name}"})
                if not fds:
                    return found
                found += (socket.socket(fileno=fd) for fd in fds)
        except BaseException:
            for sock in found:
                sock.close()
            raise

    def unlisten(self, name: str) -> None:
        """Have it listen no more; connections stay."""
        self._request({"op": "unlisten", "name": name})

    def hold_only(self, names: Iterable[str]) -> None:
        """Have it close the sockets of :meth:`listener` that are called otherwise, as when the configuration does not name them any more."""
        self._request({"op": "hold only", "names": [f"held:{name}" for name in names]})

    def relay(self, path: str, upstream: str) -> None:
        """Have it listen there, if it does not yet, and pass connections on to another shim's socket."""
        self._request({"op": "relay", "path": path, "upstream": upstream})

    def unrelay(self, path: str) -> None:
        """Have it pass on no more connections; those that there are stay."""
        self._request({"op": "unrelay", "path": path})

    def close_input(self, ident: str) -> None:
        """Nobody types any more for a container: what has been typed still goes to the guest."""
        self._request({"op": "close_input", "id": ident})

    def close_io(self, ident: str) -> None:
        """Close a container's streams, with what fits written."""
        self._request({"op": "close_io", "id": ident})

    def logger(self, ident: str, argv: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> int:
        """Start a logging program with these three descriptors as 3, 4 and 5; its pid. :raise Unavailable: the keeper was killed over it."""
        message: wire.Message = {"op": "logger", "id": ident, "argv": list(argv), "environment": dict(environment)}
        pid = self.connection().call(message, fds).get("pid")
        return pid if isinstance(pid, int) else 0

    def watch_all(self) -> Connection:
        """A new connection on which the end of every monitor is told (:meth:`Connection.event`, or wait for its descriptor), with ``id``.

        What ended before is not: see ``exit.json`` after this has answered.
        """
        for _ in range(_REPLACED):
            connection = self.connect()
            try:
                connection.call({"op": "watch_all"})
            except Unavailable:
                connection.close()
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise Unavailable(f"{_REPLACED} keepers were killed one after the other", "run the command again")

    def close(self) -> None:
        """Close all threads' connections and reap what starting a keeper left to reap. No thread may use it meanwhile."""
        while self._connections:
            self._connections.popitem()[1].close()
        self._starter.reap()


__all__ = ["Connection", "KeeperClient", "KeeperSettings", "become"]
