"""Starting processes without forking ourselves, with an explicit list of descriptors.

``posix_spawn`` (vfork underneath) costs the same from a large process as from a small one. The child gets exactly the
descriptors named; every other one of ours is marked close-on-exec first (close_range(2), Linux 5.11; on older kernels the
few that are inheritable are found in /proc/self/fd). No capability needed.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence

from unikeel.errors import Unavailable
from unikeel.kernel import libc, paths, pidfd
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final

_CLOSE_RANGE_CLOEXEC: Final = 4
_UINT_MAX: Final = 0xFFFFFFFF
_FIRST: Final = 3
#: What Python changes for itself and a program does not expect.
_DEFAULTED: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Process:
    """A child of ours. ``wait`` reaps it; an abandoned one becomes init's or the subreaper's."""

    def __init__(self, pid: int, fd: OwnedFd) -> None:
        self.pid = pid
        self.fd = fd
        self._exit: pidfd.Exit | None = None

    def wait(self, seconds: float | None = None) -> pidfd.Exit | None:
        """How it ended; None when ``seconds`` went by first. Asking again gives the same answer."""
        if self._exit is None and pidfd.wait_exit(self.fd, seconds):
            self._exit = pidfd.Exit.of_status(os.waitpid(self.pid, 0)[1])
            self.fd.close()
        return self._exit

    def send(self, number: int) -> bool:
        """Send it a signal; False if it has ended."""
        return self._exit is None and pidfd.send(self.fd, number)


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    *,
    new_session: bool = False,
    group_leader: bool = False,
    bound: bool = False,
) -> Process:
    """Start ``argv[0]`` (looked up in ``environment``'s PATH if it has no slash).

    :param descriptors: the child's number → ours. Those of 0, 1, 2 that are missing are /dev/null. Nothing else is inherited.
    :param new_session: setsid, so that a terminal's signals do not reach it. :param group_leader: a process group of its own.
    :param bound: it is killed when the calling thread ends, however that comes (PR_SET_PDEATHSIG(2const), by setpriv(1); without that program it lives on).
    :raise Unavailable: the program is missing or cannot be executed. :raise OSError: the kernel refuses otherwise.
    """
    program = find_program(argv[0], environment.get("PATH", os.defpath))
    if bound:
        program, argv = _bound(program, argv)
    set_all_close_on_exec()
    above = max([*descriptors, 2]) + 1
    moved: list[OwnedFd] = []
    try:
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0)
            for number in range(_FIRST)
            if number not in descriptors
        ]
        for number, ours in sorted(descriptors.items()):
            moved.append(_duplicate_above(ours, above))
            actions.append((os.POSIX_SPAWN_DUP2, moved[-1].fileno(), number))
        pid = _posix_spawn(program, argv, environment, actions, new_session=new_session, group_leader=group_leader)
    finally:
        for copy in moved:
            copy.close()
    return Process(pid, pidfd.open_pid(pid))


def _bound(program: str, argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    if not os.access(program, os.X_OK):
        return program, argv  # setpriv would say so with a status only
    try:
        setpriv = find_program("setpriv", os.defpath)
    except Unavailable:
        return program, argv
    return setpriv, (setpriv, "--pdeathsig", "KILL", program, *argv[1:])


def _posix_spawn(
    program: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    actions: Sequence[tuple[int, int, int] | tuple[int, int, str, int, int]],
    *,
    new_session: bool,
    group_leader: bool,
) -> int:
    try:
        if group_leader and not new_session:
            return os.posix_spawn(
                program, list(argv), environment, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=_DEFAULTED
            )
        return os.posix_spawn(
            program,
            list(argv),
            environment,
            file_actions=actions,
            setsid=new_session,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
            raise Unavailable(f"{program} cannot be executed: {error.strerror}") from error
        raise


def _duplicate_above(fd: int, least: int) -> OwnedFd:
    import fcntl

    return OwnedFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least))


def find_program(name: str, path: str) -> str:
    """The file that ``name`` stands for. :raise Unavailable: it is nowhere in ``path`` (colon-separated directories)."""
    if "/" in name:
        return name
    found = paths.find_program(name, path.split(":"))
    if found:
        return found
    raise Unavailable(f"the program {name} is not installed", "unikeel doctor says which package has it")


def set_all_close_on_exec() -> None:
    """Mark every descriptor of this process but 0, 1, 2 close-on-exec, in one step; also those a caller left inheritable."""
    try:
        libc.syscall(libc.CLOSE_RANGE, "marking descriptors", _FIRST, _UINT_MAX, _CLOSE_RANGE_CLOEXEC)
    except (OSError, Unavailable):
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= _FIRST:
                _mark(int(name))


def _mark(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
