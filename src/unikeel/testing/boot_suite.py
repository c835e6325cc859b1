"""The conformance suite of strategies to boot files: subclass :class:`BootSuite` and give it stages.

The same image and the same path must give the same answer whichever strategy is asked: the bytes, or the reason why not; and
through what is handed over nobody may change anything. Needs root: the image holds device nodes, and all but
the cache mount it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from unikeel.boot.contract import BootFile, Choice, Source
from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.boot.service import BootFiles
from unikeel.errors import BadContent
from unikeel.testing.boot_tree import CASES, CONFIG, INITRD, KERNEL, OWNER, Case

_SETTLED_SECONDS = 10.0


def _opened() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


#: Tries everything by which a holder of a descriptor could change its file; prints what worked.
_ATTACK = """
import ctypes, fcntl, json, mmap, os, struct, sys
fd = int(sys.argv[1]); link = f"/proc/self/fd/{fd}"; worked = []
def attempt(name, action):
    try:
        action()
    except (OSError, ValueError):
        return
    worked.append(name)
def reopened(flags):
    os.close(os.open(link, flags))
def written_after_chmod():
    try: os.fchmod(fd, 0o777)
    except OSError: pass
    other = os.open(link, os.O_RDWR); os.pwrite(other, b"X", 0)
attempt("write", lambda: os.pwrite(fd, b"X", 0))
attempt("truncate", lambda: os.ftruncate(fd, 0))
attempt("truncate by link", lambda: os.truncate(link, 0))
attempt("fallocate", lambda: os.posix_fallocate(fd, 0, 1 << 20))
attempt("re-open to write", lambda: reopened(os.O_WRONLY))
attempt("re-open to read and write", lambda: reopened(os.O_RDWR))
attempt("re-open to truncate", lambda: reopened(os.O_RDONLY | os.O_TRUNC))
attempt("re-open to append", lambda: reopened(os.O_WRONLY | os.O_APPEND))
attempt("chmod", lambda: os.fchmod(fd, 0o777))
attempt("chmod by link", lambda: os.chmod(link, 0o777))
attempt("chown", lambda: os.fchown(fd, os.getuid(), os.getgid()))
attempt("utime", lambda: os.utime(fd, (0, 0)))
attempt("xattr", lambda: os.setxattr(fd, "user.x", b"x"))
attempt("shared mapping", lambda: mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
attempt("flags", lambda: fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0)))
attempt("chmod and write", written_after_chmod)
attempt("unseal", lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0))
attempt("link out", lambda: os.link(link, f"/tmp/stolen-{os.getpid()}", follow_symlinks=True))
print(json.dumps(worked))
"""


@dataclass
class Stage:
    """Boot files, a container of the sample image, and the strategy under test."""

    files: BootFiles
    source: Source
    choice: Choice


def content(file: BootFile) -> bytes:
    """What a boot file's descriptor gives."""
    return os.pread(file.fd.fileno(), file.size + 1, 0)


def as_user(uid: int, argv: Sequence[str], fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program as a user with no capability at all (also as uid 0)."""
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--no-new-privs"]
    drop += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]
    return subprocess.run([*drop, *argv], pass_fds=fds, capture_output=True, text=True, check=False)


def attack(file: BootFile, uid: int) -> list[str]:
    """What a user that holds the descriptor could do to the file."""
    argv = [sys.executable, "-I", "-S", "-c", _ATTACK, str(file.fd.fileno())]
    done = as_user(uid, argv, [file.fd.fileno()])
    if done.returncode:
        raise RuntimeError(done.stderr)
    worked: list[str] = json.loads(done.stdout)
    return worked


class BootSuite:
    """Every strategy must pass. The subclass's module gives the fixture ``stage``, of scope ``class``: a :class:`Stage` with the
    sample image of :mod:`unikeel.testing.boot_tree`."""

    @pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
    def test_same_answer(self, stage: Stage, case: Case) -> None:
        if isinstance(case.expected, PathReason):
            for asked in (self._acquire, self._read):
                with pytest.raises(PathError) as caught:
                    asked(stage, case.path)
                assert caught.value.reason is case.expected
        else:
            assert self._acquire(stage, case.path) == case.expected
            assert self._read(stage, case.path) == case.expected

    def _acquire(self, stage: Stage, path: str) -> bytes:
        with stage.files.acquire(stage.source, {"kernel": path}, stage.choice) as acquired:
            return content(acquired.files["kernel"])

    def _read(self, stage: Stage, path: str) -> bytes:
        return stage.files.read_file(stage.source, path, stage.choice, 1 << 30)

    def test_the_chosen_strategy_serves(self, stage: Stage) -> None:
        paths = {"kernel": "/boot/kernel", "initrd": "/absolute", "config": "/urunc.json"}
        with stage.files.acquire(stage.source, paths, stage.choice) as acquired:
            assert (acquired.strategy, acquired.fallbacks) == (stage.choice.value, [])
            assert {role: content(file) for role, file in acquired.files.items()} == {
                "kernel": KERNEL,
                "initrd": KERNEL,
                "config": CONFIG,
            }
            assert acquired.bytes == 2 * len(KERNEL) + len(CONFIG)

    def test_size_limits(self, stage: Stage) -> None:
        read = stage.files.read_file
        assert read(stage.source, "/boot/kernel", stage.choice, len(KERNEL)) == KERNEL
        with pytest.raises(PathError) as caught:
            read(stage.source, "/boot/kernel", stage.choice, len(KERNEL) - 1)
        assert caught.value.reason is PathReason.TOO_LARGE
        with pytest.raises(PathError) as caught:  # a configuration may have a megabyte
            stage.files.acquire(stage.source, {"config": "/boot/initrd"}, stage.choice)
        assert caught.value.reason is PathReason.TOO_LARGE

    def test_all_or_nothing(self, stage: Stage) -> None:
        stage.files.acquire(stage.source, {"kernel": "/boot/kernel"}, stage.choice).close()  # a shared view is kept
        before = _opened()
        with pytest.raises(BadContent):
            stage.files.acquire(stage.source, {"kernel": "/boot/kernel", "initrd": "/boot/none"}, stage.choice)
        # Digests are computed, and views given back, in threads of their own, which have a file open for a moment: also at the
        # moment after a count without it, so one count as low as before is what shows that nothing stayed.
        deadline = time.monotonic() + _SETTLED_SECONDS
        while _opened() > before:
            assert time.monotonic() < deadline, os.listdir("/proc/self/fd")
            select.select((), (), (), 0.01)

    def test_descriptors(self, stage: Stage) -> None:
        with stage.files.acquire(stage.source, {"initrd": "/boot/initrd"}, stage.choice) as acquired:
            file = acquired.files["initrd"]
            number = file.fd.fileno()
            assert stat.S_ISREG(os.fstat(number).st_mode)
            assert fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert os.lseek(number, 0, os.SEEK_CUR) == 0
            assert file.size == os.fstat(number).st_size == len(INITRD)

    def test_second_time_is_a_hit(self, stage: Stage) -> None:
        for expected in (None, True):
            with stage.files.acquire(stage.source, {"kernel": "/relative"}, stage.choice) as acquired:
                assert expected in (None, acquired.hit)
                assert content(acquired.files["kernel"]) == KERNEL

    @pytest.mark.parametrize("path", ["/boot/kernel", "/secret", "/setuid", "/owned/kernel"])
    def test_monitor_can_reopen(self, stage: Stage, path: str) -> None:
        with stage.files.acquire(stage.source, {"kernel": path}, stage.choice) as acquired:
            assert acquired.strategy == stage.choice.value
            fd = acquired.files["kernel"].fd.fileno()
            done = as_user(stage.source.monitor_uid, ["sha256sum", f"/proc/self/fd/{fd}"], [fd])
            expected = hashlib.sha256(KERNEL if path == "/boot/kernel" else CONFIG).hexdigest()
            assert (done.returncode, done.stdout.split()[:1]) == (0, [expected])

    def test_readable_for_nobody(self, stage: Stage) -> None:
        with stage.files.acquire(stage.source, {"kernel": "/nobody"}, stage.choice) as acquired:
            fd = acquired.files["kernel"].fd.fileno()
            done = as_user(stage.source.monitor_uid, ["cat", f"/proc/self/fd/{fd}"], [fd])
            assert done.stdout.encode() == CONFIG

    @pytest.mark.parametrize("path", ["/boot/kernel", "/secret", "/setuid", "/owned/kernel"])
    def test_nobody_can_change_it(self, stage: Stage, path: str) -> None:
        with stage.files.acquire(stage.source, {"kernel": path}, stage.choice) as acquired:
            file = acquired.files["kernel"]
            before = content(file), os.fstat(file.fd.fileno())
            for uid in {0, OWNER, before[1].st_uid, stage.source.monitor_uid}:
                assert attack(file, uid) == []
            assert (content(file), os.fstat(file.fd.fileno()).st_mode) == (before[0], before[1].st_mode)

    def test_release_is_complete_and_repeatable(self, stage: Stage) -> None:
        container = stage.source._replace(container="released")
        stage.files.acquire(container, {"kernel": "/boot/kernel"}, stage.choice).close()
        assert any("released" in holding.users for holding in stage.files.listing())
        for _ in range(2):
            stage.files.release("released")
        assert not any("released" in holding.users for holding in stage.files.listing())
