"""A task's streams: the fifos, files and logging programs that containerd names, opened for the keeper to hold.

A plain path is a fifo of the client's, opened for reading and writing at once: such an open never waits for the other side, and no side ever sees
an end before the keeper closes. ``file://`` is appended to. ``binary://`` is a program that gets the output and the errors as its descriptors 3 and 4, and closes 5
when it is ready; the whole of its arguments is the query of the URI.
"""

from __future__ import annotations

import os
import select
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from unikeel.errors import DeadlineExceeded, InvalidArgument, NotFound, Unimplemented
from unikeel.kernel.fd import OwnedFd
from unikeel.model.names import quote
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.engine.tasks import Task
    from unikeel.keeper.client import KeeperClient

_READY_SECONDS: Final = 10.0
_LONGEST: Final = 4096


class Streams(NamedTuple):
    """What a launch gives the keeper: the names, in its order, and a descriptor for each."""

    names: tuple[str, ...]
    fds: tuple[int, ...]


class Place(NamedTuple):
    """Where a stream leads: ``kind`` is ``fifo`` (or whatever lies at a plain path), ``file`` or ``binary``."""

    kind: str
    path: str
    arguments: tuple[str, ...] = ()


def parse(uri: str) -> Place:
    """A stream as containerd names it. :raise InvalidArgument: it is no path and no URI. :raise Unimplemented: another scheme."""
    if len(uri) > _LONGEST or any(char in uri for char in "\0\n"):
        raise InvalidArgument("the name of a stream is too long, or holds a line break or a NUL")
    if "://" not in uri:
        kind, path, query = "fifo", uri, ""
    else:
        parts = urlsplit(uri)
        kind, path, query = parts.scheme, unquote(parts.path), parts.query
        if kind not in ("fifo", "file", "binary"):
            raise Unimplemented(f"streams cannot lead to {quote(kind)}://", "known: a fifo's path, file://, binary://")
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidArgument(f"{quote(uri)} is not an absolute path, or climbs up")
    pairs = parse_qsl(query, keep_blank_values=True)
    return Place(kind, path, tuple(word for pair in pairs for word in pair if word))


def open_streams(task: Task, keeper: KeeperClient, stack: ExitStack) -> Streams:
    """Open all streams of a task; they are closed by ``stack``, for the keeper has copies then.

    :raise NotFound: a fifo or a program is missing. :raise DeadlineExceeded: a logging program is not ready in time.
    """
    found: dict[str, int] = {}
    if stdin := task.asked("stdin"):
        place = parse(stdin)
        if place.kind != "fifo":
            raise InvalidArgument(f"standard input cannot come from {quote(stdin)}", "give a fifo")
        found["stdin"] = _open_plain(place.path, os.O_RDWR, stack)
    out, errors = task.asked("stdout"), "" if task.terminal else task.asked("stderr")
    programs: dict[str, tuple[int, int]] = {}
    for name, uri in (("stdout", out), ("stderr", errors)):
        if not uri:
            continue
        place = parse(uri)
        if place.kind == "binary":
            if uri not in programs:
                programs[uri] = _start_program(task, place, keeper, stack)
            found[name] = programs[uri][name == "stderr"]
        elif place.kind == "file":
            found[name] = _open_file(place.path, stack)
        else:
            found[name] = _open_plain(place.path, os.O_RDWR, stack)
    names = tuple(name for name in ("stdin", "stdout", "stderr") if name in found)
    return Streams(names, tuple(found[name] for name in names))


def _open_plain(path: str, flags: int, stack: ExitStack) -> int:
    """A fifo; whatever else lies there is taken if it can be written to by appending."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_APPEND)
    except OSError as error:
        raise NotFound(f"the stream {path} cannot be opened: {error.strerror}") from None
    owned = stack.enter_context(OwnedFd(fd))
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        raise InvalidArgument(f"the stream {path} is neither a fifo nor a file")
    return owned.fileno()


def _open_file(path: str, stack: ExitStack) -> int:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(path, flags, 0o644)
    except OSError as error:
        raise InvalidArgument(f"the stream file://{path} cannot be opened: {error.strerror}") from None
    return stack.enter_context(OwnedFd(fd)).fileno()


def _start_program(task: Task, place: Place, keeper: KeeperClient, stack: ExitStack) -> tuple[int, int]:
    """Start a logging program and wait until it is ready; the writing ends for output and errors."""
    if not os.access(place.path, os.X_OK):
        raise NotFound(f"the logging program {place.path} is not there, or cannot be executed")
    ends = [tuple(stack.enter_context(OwnedFd(fd)) for fd in os.pipe2(os.O_CLOEXEC)) for _ in range(3)]
    environment = {"CONTAINER_ID": task.id, "CONTAINER_NAMESPACE": task.namespace}
    for name in ("PATH", "HOME"):
        if name in os.environ:
            environment[name] = os.environ[name]
    given = (ends[0][0].fileno(), ends[1][0].fileno(), ends[2][1].fileno())
    keeper.logger(task.ident, [place.path, *place.arguments], environment, given)
    for owned in (ends[0][0], ends[1][0], ends[2][1]):
        owned.close()
    if not select.select([ends[2][0].fileno()], [], [], _READY_SECONDS)[0]:
        raise DeadlineExceeded(f"the logging program {place.path} was not ready in {_READY_SECONDS:.0f} s")
    for end in (ends[0][1], ends[1][1]):
        os.set_blocking(end.fileno(), False)
    return ends[0][1].fileno(), ends[1][1].fileno()
