"""A native lab with the tests' images and a daemon of ours in it, and the words for what the tests do there.

There is one world for each root, shared by all tests of a session (:func:`world_of`), since it takes seconds to make. A test names its containers after itself
and removes them; :mod:`.stage` says what it forgot.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import pytest

from lab import configuration, images
from lab.native import Native
from lab.place import Done
from lab_support import archives, cgroups
from lab_support.cri.client import Cri
from lab_support.events import Events
from lab_support.processes import Process, kill_and_wait, processes
from lab_support.waiting import PATIENCE, Stopwatch, until
from unikeel.containerd.client import Containerd
from unikeel.containerd.records import Packed

RUNTIME: Final = "io.containerd.unikeel.v2"
HELLO: Final = "lab.test/hello:1"
DISK: Final = "lab.test/disk:1"
LABELLED: Final = "lab.test/labelled:1"
ANNOTATED: Final = "lab.test/annotated:1"
SILENT: Final = "lab.test/silent:1"  # a guest, but the image does not say so
BROKEN: Final = "lab.test/broken:1"
BUSYBOX: Final = images.BUSYBOX
#: What a monitor may use beside its guest's memory (``sandbox.monitor_allowance``): the sandbox's limit is that much higher than the container's.
MONITOR: Final = 128 << 20
RUN: Final = "/run/unikeel"
DAEMON_LOG: Final = "/var/log/unikeel-daemon.log"
#: How containerd names what Update takes.
_RESOURCES: Final = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
LONG: Final = os.environ.get("UNIKEEL_LONG") == "1"

_SPECS: Final = (
    archives.guest(HELLO),
    archives.guest(DISK, values=archives.DISK),
    archives.guest(LABELLED, said="labels"),
    archives.guest(ANNOTATED, said="annotations"),
    archives.guest(SILENT, said="nowhere"),
    archives.guest(BROKEN, boot=b"this is no kernel\n" * 512),
)
#: Times are short, so that what is kept for a while goes within a test.
_CONFIG: Final = """\
root = "/var/lib/unikeel"
run_root = "/run/unikeel"
[boot]
view_linger = 1
[start]
timeout = 60
"""

T = TypeVar("T")


class Combination(NamedTuple):
    """Where a test runs."""

    root: str
    snapshotter: str

    @property
    def has_disks(self) -> bool:
        """Whether a container's snapshot is something that a guest can have as its disk."""
        return self.snapshotter in ("blockfile", "devmapper", "unikeel")


SHORT: Final = (Combination("trixie", "blockfile"), Combination("sid", "overlayfs"), Combination("sid", "erofs"))
ALL: Final = (
    *SHORT,
    Combination("trixie", "overlayfs"),
    Combination("trixie", "native"),
    Combination("sid", "blockfile"),
    Combination("sid", "native"),
    Combination("trixie", "unikeel"),
    Combination("sid", "unikeel"),
)
#: What every test with a world of its own choosing runs on: all with UNIKEEL_LONG=1.
COMBINATIONS: Final = ALL if LONG else SHORT
#: One for each containerd.
ROOTS: Final = SHORT[:2]


def name_of(combination: Combination) -> str:
    """For pytest's names."""
    return f"{combination.root}-{combination.snapshotter}"


class World:
    """A lab and what the tests know about it. ``snapshotter`` is the one that CRI uses."""

    def __init__(self, lab: Native, snapshotter: str, scratch: str) -> None:
        self.lab = lab
        self.snapshotter = snapshotter
        self._scratch = scratch
        self._imported: set[tuple[str, str]] = set()
        self._daemon_started = False

    @property
    def major(self) -> int:
        """containerd's major version."""
        return int(self.lab.containerd_version.partition(".")[0])

    # -- images ----------------------------------------------------------------------------------------------------------

    def provide(self, snapshotter: str, namespace: str = "default") -> None:
        """The tests' images, imported and unpacked into a snapshotter of a namespace; once."""
        if (snapshotter, namespace) in self._imported:
            return
        for spec in _SPECS:
            path = os.path.join(self._scratch, _file_of(spec.name))
            if not os.path.exists(path):
                archives.write(spec, path)
            self.import_archive(path, snapshotter, namespace)
        self.import_archive(images.archive("busybox"), snapshotter, namespace)
        self._imported.add((snapshotter, namespace))

    def provide_again(self, name: str, snapshotter: str) -> None:
        """One of the tests' images again, which a test has removed."""
        self.import_archive(os.path.join(self._scratch, _file_of(name)), snapshotter)

    def archive_of_hello(self) -> str:
        """The archive of the image :data:`HELLO`, as a path inside."""
        return self.lab.take(os.path.join(self._scratch, _file_of(HELLO)))

    def import_archive(self, path: str, snapshotter: str, namespace: str = "default") -> None:
        """Import one archive of the host."""
        self.lab.import_image(path, snapshotter=snapshotter, namespace=namespace)

    # -- tasks -----------------------------------------------------------------------------------------------------------

    def ctr(self, *args: str, check: bool = True, timeout: float = PATIENCE, namespace: str = "default") -> Done:
        """Run ``ctr``."""
        return self.lab.ctr(*args, check=check, timeout=timeout, namespace=namespace)

    def run_words(
        self,
        ident: str,
        *args: str,
        image: str = HELLO,
        snapshotter: str = "",
        annotations: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> list[str]:
        """The words of ``ctr run`` behind ``ctr``."""
        chosen = snapshotter or self.snapshotter
        marks = [word for key, value in (annotations or {}).items() for word in ("--annotation", f"{key}={value}")]
        return ["run", "--runtime", RUNTIME, "--snapshotter", chosen, *marks, *flags, image, ident, *args]

    def run(self, ident: str, *args: str, check: bool = True, **options: Any) -> Done:
        """``ctr run`` in the foreground. ``options`` are those of :meth:`run_words`."""
        return self.ctr(*self.run_words(ident, *args, **options), check=check)

    def detached(self, ident: str, *args: str, flags: Sequence[str] = (), check: bool = True, **options: Any) -> Done:
        """``ctr run -d`` with its output in a file, see :meth:`output`."""
        log = (
            ()
            if any(flag.startswith(("--log-uri", "--null-io", "-t", "--tty")) for flag in flags)
            else ("--log-uri", f"file://{self.log(ident)}")
        )
        return self.ctr(*self.run_words(ident, *args, flags=("-d", *log, *flags), **options), check=check)

    def log(self, ident: str) -> str:
        """Where :meth:`detached` has the output, inside."""
        return f"/var/log/tests-{ident}.log"

    def output(self, ident: str) -> str:
        """What a detached container has written so far."""
        path = self.lab.path(self.log(ident))
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def await_output(self, ident: str, text: str) -> str:
        """Wait until a detached container has written a text."""
        until(lambda: text in self.output(ident), f"{ident} writes {text!r}")
        return self.output(ident)

    def tasks(self, namespace: str = "default") -> dict[str, tuple[int, str]]:
        """Number and status of each task's process."""
        lines = self.ctr("tasks", "ls", namespace=namespace).stdout.splitlines()[1:]
        return {fields[0]: (int(fields[1]), fields[2]) for line in lines if len(fields := line.split()) == 3}

    def status(self, ident: str) -> str:
        """The status of one task; empty if there is none."""
        return self.tasks().get(ident, (0, ""))[1]

    def await_status(self, ident: str, status: str, patience: float = PATIENCE) -> None:
        """Wait until a task has a status."""
        until(lambda: self.status(ident) == status, f"{ident} is {status}", patience)

    def monitor_of(self, ident: str, namespace: str = "default") -> int:
        """The host's number of a task's process."""
        return self.host_pid(self.tasks(namespace)[ident][0])

    def delete(self, ident: str) -> int:
        """``ctr tasks delete``; the exit code of the task that had ended. Some versions end with it, others say it in a warning."""
        done = self.ctr("tasks", "delete", ident, check=False)
        said = re.search(r"non-zero exit code (\d+)", done.stderr)
        assert said or "level=error" not in done.stderr, done.stderr
        return int(said[1]) if said else done.returncode

    def remove(self, *idents: str) -> None:
        """Remove containers with their tasks, whatever they are doing; those that are not there, too."""
        for ident in idents:
            if ident in self.tasks():
                self.ctr("tasks", "kill", "-s", "KILL", ident, check=False)
                until(lambda ident=ident: self.status(ident) in ("STOPPED", ""), f"{ident} has ended")  # type: ignore[misc]
                self.ctr("tasks", "delete", ident, check=False)
            self.ctr("containers", "rm", ident, check=False)

    def host_pid(self, inside: int) -> int:
        """The host's number of a process of the lab or of one of its sandboxes."""
        found = [process.pid for process in processes(self.lab) if process.inside == inside]
        assert len(found) == 1, f"process {inside} of the lab is {found} here"
        return found[0]

    def memory_limit(self, ident: str, namespace: str = "default") -> int:
        """The limit of a task's cgroup, in bytes."""
        return cgroups.memory_limit(self.monitor_of(ident, namespace))

    def update(self, ident: str, **resources: object) -> None:
        """Change a task's limits. :param resources: the fields of the OCI specification's ``LinuxResources``."""
        packed = Packed(_RESOURCES, json.dumps(resources).encode())
        self.api(lambda containerd: containerd.tasks.update(ident, packed))

    def remove_all(self, idents: Sequence[str]) -> None:
        """The same, of many at once."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.remove, idents))

    @contextmanager
    def events(self) -> Iterator[Events]:
        """Listen to containerd's events."""
        with Events(self.lab) as events:
            yield events

    # -- other doors -----------------------------------------------------------------------------------------------------

    def api(self, use: Callable[[Containerd], Awaitable[T]], namespace: str = "default") -> T:
        """Do something by containerd's own interface."""

        async def connected() -> T:
            async with Containerd(self.lab.path(configuration.SOCKET), namespace) as containerd:
                return await use(containerd)

        return asyncio.run(connected())

    @property
    def cri(self) -> Cri:
        """containerd's CRI."""
        return Cri(self.lab.path(configuration.SOCKET))

    def has(self, program: str) -> bool:
        """Whether a program is there."""
        return self.lab.run(["which", program], check=False).returncode == 0

    def unikeel(self, *args: str, check: bool = True) -> Done:
        """Run our own command line inside."""
        return self.lab.run(["unikeel", *args], check=check)

    # -- the daemon ------------------------------------------------------------------------------------------------------

    def start_daemon(self, **environment: str) -> None:
        """Start ``unikeel daemon`` and wait for its process. What is asked from now on waits until it serves."""
        self.lab.spawn(["unikeel", "daemon"], DAEMON_LOG, env=environment)
        self.await_daemon()

    def await_daemon(self, other_than: int = 0, patience: float = PATIENCE) -> Process:
        """Wait for a daemon to live. :param other_than: not this one."""
        return until(
            lambda: next((found for found in self.daemons() if found.pid != other_than), None),
            "a daemon lives",
            patience,
        )

    def daemons(self) -> list[Process]:
        """The daemon's process, without those that are about to go."""
        return self._named("unikeel-daemon")

    def keepers(self) -> list[Process]:
        """The daemon's keeper."""
        return self._named("unikeel-keeper")

    def _named(self, name: str) -> list[Process]:
        return [found for found in processes(self.lab) if found.name == name and found.state != "Z"]

    def kill_daemon(self, number: int = signal.SIGKILL) -> Process:
        """Kill the daemon, and wait for its end and for the next one, which is returned."""
        daemon = self.await_daemon()
        kill_and_wait(daemon.pid, number)
        return self.await_daemon(other_than=daemon.pid)

    @contextmanager
    def halted_daemon(self) -> Iterator[Process]:
        """A daemon that does nothing meanwhile, and may be killed. If it lives at the end, it goes on."""
        daemon = self.await_daemon()
        descriptor = os.pidfd_open(daemon.pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            yield daemon
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            os.close(descriptor)

    def programs(self, name: str, word: str) -> list[int]:
        """The host's numbers of the programs of this name that have a word on their command lines."""
        return [process.pid for process in processes(self.lab) if process.name == name and word in process.argv]

    def kill_program(self, name: str, word: str) -> None:
        """``kill -9`` of such a program, the only one; what entered the lab for it ends with it."""
        (pid,) = self.programs(name, word)
        kill_and_wait(pid)

    def stop_everything_of_ours(self) -> None:
        """End keeper and daemon, as a test that starts them differently needs it; no task may be there."""
        for keeper in self.keepers():
            kill_and_wait(keeper.pid)
        for daemon in self.daemons():
            kill_and_wait(daemon.pid)

    # -- nothing ---------------------------------------------------------------------------------------------------------

    def monitors(self) -> list[Process]:
        """Every process that runs a guest."""
        return [found for found in processes(self.lab) if found.is_monitor and found.state != "Z"]

    def leftovers(self) -> list[str]:
        """Containers, tasks, monitors, sandboxes and directories of tasks that are there."""
        found = [f"container {line}" for line in self.ctr("containers", "ls", "-q").stdout.split()]
        found += [f"task {line}" for line in self.ctr("tasks", "ls", "-q").stdout.split()]
        found += [f"monitor {monitor.argv}" for monitor in self.monitors()]
        directory = self.lab.path(f"{RUN}/daemon/tasks")
        if os.path.isdir(directory):
            found += [f"directory {name}" for name in os.listdir(directory)]
        return found

    def settled(self, patience: float = 10) -> list[str]:
        """The same, once nothing is left or a while has passed: what is no more than on its way out does not count."""
        deadline = Stopwatch()
        while (left := self.leftovers()) and deadline() < patience:
            time.sleep(0.1)
        return left


def _file_of(image: str) -> str:
    return image.replace("/", "-").replace(":", "-") + ".tar"


_pool: dict[str, World] = {}


def world_of(root: str, config: pytest.Config) -> World:
    """The session's world on a root, made at its first use and closed with the session."""
    if root not in _pool:
        if not _pool:
            config.add_cleanup(_close_all)
        snapshotter = next(found.snapshotter for found in ROOTS if found.root == root)
        lab = Native(root, snapshotter)
        lab.open()
        scratch = tempfile.mkdtemp(prefix="unikeel-tests-")
        _pool[root] = world = World(lab, snapshotter, scratch)
        lab.put("/etc/unikeel/config.toml", _CONFIG.encode())
        world.start_daemon()
    return _pool[root]


def _close_all() -> None:
    import shutil

    left = []
    for world in _pool.values():
        left += world.lab.close()
        shutil.rmtree(world._scratch, ignore_errors=True)
    _pool.clear()
    assert left == [], f"a lab left something behind: {left}"
