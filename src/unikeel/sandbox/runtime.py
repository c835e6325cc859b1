"""The OCI runtime that confines monitors: crun, or runc where crun cannot run.

``create`` is run by the keeper, which thereby becomes the monitor's parent; ``start`` and ``delete`` too, because on a host with hybrid
cgroups only the keeper's mount namespace shows crun a tree that it accepts. Both are bounded in time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from unikeel.errors import FailedPrecondition, Unavailable
from unikeel.keeper.client import KeeperClient
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.values import NamedTuple

_SECONDS: Final = 60.0
_OUTPUT_MAX: Final = 64 * 1024
#: In the order of preference.
CANDIDATES: Final = ("crun", "runc")
#: What each keeps in a sandbox's directory of its state.
_STATE_FILES: Final = (("crun", "status"), ("runc", "state.json"))


class Runtime(NamedTuple):
    """An OCI runtime: its name and the absolute path of its program."""

    name: str
    path: str

    @property
    def closes_extra_descriptors(self) -> bool:
        """Whether a descriptor beyond the preserved ones reaches the monitor's exec, which then closes it (crun), or not (runc)."""
        return self.name == "crun"


def find_runtime(choice: str) -> Runtime:
    """The runtime to use: ``crun`` or ``runc`` if that was asked for, the first installed of both for ``auto``.

    :raise Unavailable: it is not installed.
    """
    names = CANDIDATES if choice == "auto" else (choice,)
    for name in names:
        path = find_program(name)
        if path:
            return Runtime(name, path)
    raise Unavailable(
        f"no OCI runtime to confine monitors with: {' and '.join(names)} not found",
        "install crun (Debian: apt-get install crun), or use --no-sandbox for a trial without confinement",
    )


class Sandboxes:
    """The sandboxes of one state root."""

    def __init__(self, runtime: Runtime, keeper: KeeperClient, state: str) -> None:
        self._runtime = runtime
        self._keeper = keeper
        self._state = state

    @property
    def runtime(self) -> Runtime:
        """Which OCI runtime this uses."""
        return self._runtime

    def create_argv(
        self, ident: str, bundle: str, pid_file: str, preserved: int, *, systemd: bool = False, go: bool = False
    ) -> list[str]:
        """The command that makes the sandbox; its monitor waits for :meth:`start`, or goes (``go``).

        :param systemd: the cgroup's path is one for systemd, which is to make the cgroup.
        """
        return [
            *self._base(),
            *(["--systemd-cgroup"] if systemd else []),
            *(["run", "--detach"] if go else ["create"]),
            f"--preserve-fds={preserved}",
            f"--bundle={bundle}",
            f"--pid-file={pid_file}",
            ident,
        ]

    def start(self, ident: str, *, same: bool = True) -> None:
        """Let the monitor go. :raise FailedPrecondition: the runtime refused; the message has its words.

        It is marked: it waits for ever for a monitor that is killed before it has read what lets it go.

        :param same: only by the keeper that this thread asked last.
        :raise Unavailable: the keeper that made the sandbox was killed: nobody would take what the guest prints, or its exit.
        """
        status, text = self._run([*self._base(), "start", ident], same=same, mark=ident)
        if status != 0:
            raise FailedPrecondition(f"{self._runtime.name} could not start the sandbox of {ident}: {last_line(text)}")

    def update(self, ident: str, resources: str) -> None:
        """Change a sandbox's limits to those in a file. :raise FailedPrecondition: the runtime refused; the message has its words."""
        status, text = self._run([*self._base(), "update", f"--resources={resources}", ident])
        if status != 0:
            raise FailedPrecondition(f"{self._runtime.name} could not update the sandbox of {ident}: {last_line(text)}")

    def waits(self, ident: str) -> bool:
        """Whether a sandbox was made whose monitor has not been let go yet."""
        status, text = self._run([*self._base(), "state", ident], repeat=True)
        return status == 0 and '"status": "created"' in " ".join(text.split())

    def run(self, ident: str, bundle: str) -> str:
        """Run a sandbox whose program ends by itself; why that failed, or an empty string."""
        status, text = self._run([*self._base(), "run", f"--bundle={bundle}", ident], mark=ident)
        return "" if status == 0 else last_line(text)

    def run_detached(self, ident: str, bundle: str, fds: Sequence[int], *, mark: str, systemd: bool = False) -> str:
        """Run a sandbox that goes on by itself, a child of the keeper's; why that failed, or an empty string.

        :param fds: its program has these as 3, 4, …. :param mark: the container that it is for, whose monitor is ended when it ends before that.
        :param systemd: as of :meth:`create_argv`.
        """
        pid_file = os.path.join(bundle, "pid")
        argv = self.create_argv(ident, bundle, pid_file, len(fds), systemd=systemd, go=True)
        status, text = self._run(argv, mark=mark, fds=fds, serves=(mark, pid_file))
        return "" if status == 0 else last_line(text)

    def delete(self, ident: str) -> None:
        """Kill what runs in the sandbox and have the runtime that made it take it away; a sandbox that does not exist is fine.

        One that was only half made, so that the runtime does not know what to do, is left to :mod:`.remains`.
        """
        directory = os.path.join(self._state, ident)
        for name, file in _STATE_FILES:
            if os.path.exists(os.path.join(directory, file)):
                path = self._runtime.path if name == self._runtime.name else find_program(name)
                if path:
                    self._run([path, "--root", self._state, "delete", "--force", ident], repeat=True)
                return

    def known(self) -> list[str]:
        """The sandboxes that the runtime has a state for."""
        try:
            return sorted(os.listdir(self._state))
        except FileNotFoundError:
            return []

    def _base(self) -> list[str]:
        return [self._runtime.path, "--root", self._state]

    def _run(
        self,
        argv: Sequence[str],
        *,
        repeat: bool = False,
        same: bool = False,
        mark: str = "",
        fds: Sequence[int] = (),
        serves: tuple[str, str] | None = None,
    ) -> tuple[int, str]:
        output = os.memfd_create("output", os.MFD_CLOEXEC)
        try:
            status = self._keeper.spawn(
                argv, output, seconds=_SECONDS, repeat=repeat, same=same, mark=mark, fds=fds, serves=serves
            )
            return status, os.pread(output, _OUTPUT_MAX, 0).decode(errors="replace")
        finally:
            os.close(output)


def last_line(text: str) -> str:
    """The last line that says something, at most 400 characters, without control characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else "it said nothing"
    return "".join(char if char.isprintable() else "?" for char in line)[:400]
