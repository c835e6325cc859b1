"""What is left on the host of a state root: the tests' idea of "nothing"."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from unikeel.sandbox.choosing import trial_name

#: Files that stay, or come and go with the record store.
_STANDING = (
    "state.db",
    "run/keeper.lock",
    "run/keeper.start",
    "run/keeper.log",
    "reconcile.lock",
    "facts/",
    "run/sandbox-root/",
)
_EMPTY_TABLES = ("network_attachments", "containers", "intents", "boot_users", "boot_views", "boot_copies")


def host_leftovers(root: str, idents: Iterable[str]) -> list[str]:
    """Mounts, loop devices, cgroups and processes that belong to a state root and to these containers."""
    root = os.path.realpath(root)
    return [*_mounts(root), *_loops(root), *_cgroups(root, set(idents)), *_processes(root, set(idents))]


def _mounts(root: str) -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            if root in line:
                yield f"mount {line.split()[4]}"


def _loops(root: str) -> Iterator[str]:
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as file:
                backing = file.read().strip()
        except OSError:
            continue
        if backing.startswith(root):
            yield f"{name} of {backing}"


def _cgroups(root: str, idents: set[str]) -> Iterator[str]:
    names = {f"unikeel-{ident}" for ident in (*idents, trial_name(f"{root}/run/oci"))}
    for directory in ("/sys/fs/cgroup", *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir())):
        for name in names & set(os.listdir(directory)):
            yield f"cgroup {directory}/{name}"


def _processes(root: str, idents: set[str]) -> Iterator[str]:
    ours = {str(os.getpid()), str(os.getppid())}
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in ours:
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().decode(errors="replace").split("\0")
            with open(f"/proc/{pid}/environ", "rb") as file:
                marks = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        marked = any(f"UNIKEEL_CONTAINER={ident}" in marks for ident in idents)
        mine = any(word == root or word.startswith(root + "/") for word in argv)
        if (mine or marked) and _state(pid) != "Z":
            yield f"process {pid} {' '.join(argv)[:200]}"


def _state(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def tree(root: str) -> set[str]:
    """All paths below a state root, except those that stay for good."""
    found: set[str] = set()
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.relpath(os.path.join(directory, name), root)
            if not path.startswith(_STANDING):
                found.add(path)
    return found


def records(root: str) -> list[str]:
    """Rows of tables that are empty when there is no container, and snapshots that are not committed ones."""
    connection = sqlite3.connect(f"file:{root}/state.db?mode=ro", uri=True)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = [
            f"{table}: {row}"
            for table in _EMPTY_TABLES
            if table in tables
            for row in connection.execute(f"SELECT * FROM {table}")
        ]
        snapshots = next(table for table in tables if "snapshots" in table)
        found += [str(row) for row in connection.execute(f"SELECT * FROM {snapshots}") if "committed" not in str(row)]
        return found
    finally:
        connection.close()


@contextmanager
def limit(seconds: int, what: str) -> Iterator[None]:
    """Fail if a block takes too long; for waiting in system calls that know no time limit."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{what} took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wait_keeper_gone(root: str, seconds: int = 60) -> None:
    """Wait until no keeper of a state root lives: until its lock can be had."""
    fd = os.open(os.path.join(root, "run", "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with limit(seconds, "the keeper's leaving"):
            fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


class Baseline:
    """A state root as it is when nothing is there but its images; compare with it later."""

    def __init__(self, root: str) -> None:
        wait_keeper_gone(root)
        self.root = root
        self.tree = tree(root)

    def leftovers(self, idents: Iterable[str] = ()) -> list[str]:
        """Everything that is there now and was not then, once the keeper has gone."""
        wait_keeper_gone(self.root)
        more = [f"file {path}" for path in sorted(tree(self.root) - self.tree)]
        return [*more, *records(self.root), *host_leftovers(self.root, idents)]
