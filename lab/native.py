"""A containerd of Debian trixie or sid on this host: in namespaces of its own, whose end is the end of everything in there.

::

    with Native("sid", snapshotter="erofs") as lab:
        lab.import_image("build/samples/hello.tar")
        print(lab.ctr("version").stdout)

The root is the built one below a scratch layer; ``/var/lib/containerd``, ``/var/lib/unikeel``, ``/var/log`` and ``/tmp`` are directories of the host's file system;
``/run`` is fresh; ``/dev`` is the host's. The working tree is at ``/unikeel``, read-only. The network is a loopback, and a bridge for pods.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from lab import bytecode, leftovers
from lab.commands import clean_environment, shown
from lab.errors import LabError
from lab.paths import PREFIX, PROJECT, cache
from lab.place import ENVIRONMENT, TEMPORARY, Done, Place, checked
from lab.root import LabRoot, opened

_INIT: Final = os.path.join(PROJECT, "lab", "inside", "init.py")
_UNSHARE: Final = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--propagation", "private")
#: Joins the lab's cgroups, then its namespaces: a process that only did the latter would be seen outside its own cgroup root.
_ENTER: Final = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1/cgroup.procs"; shift; n=$((n-1)); done; exec nsenter "$@"'
)


class Native(Place):
    """A lab on this host; a context manager. It needs root, and a root that was built.

    :param root: ``trixie`` (containerd 1.7) or ``sid`` (2.1 or later).
    :param snapshotter, env, extra, image_mib, cri: see :meth:`lab.place.Place.start_containerd`.
    :param containerd: false: do not start one.
    """

    def __init__(
        self,
        root: str = "trixie",
        snapshotter: str = "overlayfs",
        *,
        env: Mapping[str, str] | None = None,
        extra: str = "",
        image_mib: int = 256,
        cri: bool = True,
        containerd: bool = True,
    ) -> None:
        super().__init__()
        self.root: LabRoot = opened(root)
        self.identity = secrets.token_hex(6)
        self.scratch = cache("scratch", PREFIX + self.identity)
        self._start: dict[str, Any] = {
            "snapshotter": snapshotter,
            "env": env,
            "extra": extra,
            "image_mib": image_mib,
            "cri": cri,
        }
        self._with_containerd = containerd
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._cgroups: list[str] = []
        #: The first process in there, as the host numbers it.
        self.init_pid = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.close()
        if left and error is None:
            raise LabError(f"the lab on {self.root.name} left something behind: {', '.join(left)}")

    def open(self) -> None:
        """Start it, as ``with`` does."""
        leftovers.sweep()
        try:
            self._open_world()
            if self._with_containerd:
                self.start_containerd(**self._start)
        except BaseException:
            self.close()
            raise

    def close(self) -> list[str]:
        """End everything in there and remove what it wrote; what could not be removed. To be called again at will."""
        if self._lifeline < 0:
            return []
        os.close(self._lifeline)
        self._lifeline = -1
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                if self.init_pid:
                    os.kill(self.init_pid, signal.SIGKILL)
                self._process.kill()
                self._process.wait(20)
        self._process, self._containerd = None, 0
        return leftovers.remove(self.identity)

    @property
    def containerd_version(self) -> str:
        """Of the package."""
        return self.root.versions["containerd"]

    @property
    def containerd_pid(self) -> int:
        """containerd's process number on the host. :raise LabError: it does not run."""
        return self.host_pid(self.containerd_pid_inside)

    def host_pid(self, inside: int) -> int:
        """The host's number of a process in there. :raise LabError: there is none."""
        mine = os.stat(f"/proc/{self.init_pid}/ns/pid").st_ino
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{name}/ns/pid").st_ino != mine:
                    continue
                with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                    numbers = next(line.split()[1:] for line in file if line.startswith("NSpid:"))
            except (OSError, StopIteration):
                continue
            if int(numbers[-1]) == inside:
                return int(name)
        raise LabError(f"there is no process {inside} in the lab on {self.root.name}")

    def path(self, inside: str) -> str:
        """Where a path in there is for the host's programs (absolute symbolic links in it lead them astray)."""
        return f"/proc/{self.init_pid}/root{inside}"

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes = b"",  # noqa: A002
        timeout: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> Done:
        """See :meth:`lab.place.Place.run`."""
        content = input.encode() if isinstance(input, str) else input
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.popen(argv, env=env, cwd=cwd, start_new_session=True, **streams) as process:
            try:
                output, errors = process.communicate(content, timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise LabError(
                    f"`{shown(argv)}` has not ended after {timeout:.0f} s in the lab on {self.root.name}"
                ) from None
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        done = Done([*argv], process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))
        return checked(done, check=check)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        **options: Any,  # noqa: ANN401 - as many kinds as Popen has
    ) -> subprocess.Popen[bytes]:
        """Start a program inside. ``options`` are those of :class:`subprocess.Popen`; the process is nsenter's, which ends as the program does."""
        target = str(self.init_pid)
        enter = [
            "--target",
            target,
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--net",
            "--cgroup",
            f"--wdns={cwd}",
            "--",
            *argv,
        ]
        words = ["sh", "-c", _ENTER, "sh", str(len(self._cgroups)), *self._cgroups, *enter]
        return subprocess.Popen(words, env=ENVIRONMENT | dict(env or {}), **options)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """See :meth:`lab.place.Place.put`."""
        host = self.path(path)
        os.makedirs(os.path.dirname(host), exist_ok=True)
        with open(host, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)

    def get(self, path: str) -> bytes:
        """See :meth:`lab.place.Place.get`."""
        try:
            with open(self.path(path), "rb") as file:
                return file.read()
        except OSError as error:
            raise LabError(f"{path} of the lab on {self.root.name} cannot be read: {error.strerror}") from None

    def take(self, path: str) -> str:
        """See :meth:`lab.place.Place.take`. What is not part of the working tree is copied."""
        path = os.path.abspath(path)
        if path.startswith(PROJECT + "/"):
            return "/unikeel" + path.removeprefix(PROJECT)
        inside = f"{TEMPORARY}/{secrets.token_hex(4)}-{os.path.basename(path)}"
        with open(path, "rb") as source, open(self.path(inside), "wb") as target:
            shutil.copyfileobj(source, target)
        return inside

    def _open_world(self) -> None:
        lock = leftovers.claim(self.scratch)
        shared = os.open(self.root.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        life, self._lifeline = os.pipe2(os.O_CLOEXEC)
        answer, status = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(shared, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(f"the lab's root {self.root.name} is being built right now") from None
            words = [*_UNSHARE, "--", sys.executable, "-I", "-S", _INIT, json.dumps(self._world(life, status))]
            with open(os.path.join(self.scratch, "init.log"), "wb") as log:
                self._process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=clean_environment(),
                    pass_fds=(life, status, lock, shared),
                    start_new_session=True,
                )
            os.close(status)
            status = -1
            self._await(answer)
        finally:
            for descriptor in (life, status, answer, lock, shared):
                if descriptor >= 0:
                    os.close(descriptor)

    def _world(self, lifeline: int, status: int) -> dict[str, Any]:
        launcher, tools = os.path.join(PROJECT, "build", "launcher"), cache("tools")
        for directory in (launcher, tools):
            os.makedirs(directory, exist_ok=True)
        return {
            "lifeline": lifeline,
            "status": status,
            "lower": self.root.path,
            "scratch": self.scratch,
            "cgroup": PREFIX + self.identity,
            "hostname": f"lab-{self.root.name}",
            "binds": [
                [PROJECT, "/unikeel", True],
                [launcher, "/opt/unikeel-launcher", True],
                [tools, "/opt/lab-tools", True],
            ],
            "stacks": [["/unikeel/src", [bytecode.compiled(self.root), os.path.join(PROJECT, "src")]]],
        }

    def _await(self, answer: int) -> None:
        began = time.monotonic()
        said = os.read(answer, 4096).decode(errors="replace")  # one line; its writers live on
        if not said.startswith("ready "):
            with open(os.path.join(self.scratch, "init.log"), encoding="utf-8", errors="replace") as log:
                detail = said or log.read()[-1000:] or f"it ended after {time.monotonic() - began:.1f} s"
            raise LabError(f"the lab on {self.root.name} cannot be made: {detail.strip()}")
        self.init_pid = int(said.split()[1])
        self._cgroups = leftovers.cgroups(self.identity)
