"""The kernel package's half that needs no privilege: descriptors, paths, memory files, processes, watching."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from unikeel.errors import InvalidArgument, Unavailable
from unikeel.kernel import memfd, pidfd, process
from unikeel.kernel.fd import OwnedFd, link_of, open_path
from unikeel.kernel.paths import NotRegular, TooLarge, open_beneath, open_regular_beneath

PATH = {"PATH": os.defpath}


# -- descriptors ----------------------------------------------------------------------------------------------------


def test_owned_fd_closes_once() -> None:
    fd = OwnedFd(os.open("/dev/null", os.O_RDONLY))
    number = fd.fileno()
    with fd:
        assert fd.fileno() >= 0
        assert os.fstat(fd.fileno())
    assert fd.fileno() == -1
    taken = os.open("/dev/null", os.O_RDONLY)
    assert taken == number  # the number is somebody else's now
    fd.close()
    os.close(taken)


def test_owned_fd_release_and_duplicate() -> None:
    fd = open_path("/dev/null", os.O_RDONLY)
    copy = fd.duplicate()
    number = fd.release()
    fd.close()
    assert os.path.samestat(os.fstat(number), os.fstat(copy.fileno()))
    assert fcntl.fcntl(copy.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(number)
    copy.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fd.duplicate()


# -- paths ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: os.PathLike[str]) -> Iterator[int]:
    os.mkdir(os.path.join(tmp_path, "d"))
    with open(os.path.join(tmp_path, "d", "file"), "w") as file:
        file.write("content")
    os.symlink("/d/file", os.path.join(tmp_path, "absolute"))
    os.symlink("../../../etc/passwd", os.path.join(tmp_path, "climbing"))
    os.mkfifo(os.path.join(tmp_path, "fifo"))
    with open_path(os.fspath(tmp_path), os.O_RDONLY | os.O_DIRECTORY) as fd:
        yield fd.fileno()


@pytest.mark.parametrize("path", ["d/file", "/d/file", "absolute", "../../d/./file"])
def test_open_stays_in_the_root(root: int, path: str) -> None:
    with open_regular_beneath(root, path, 7) as fd:
        assert os.read(fd.fileno(), 10) == b"content"
        assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH) == os.O_RDONLY


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("climbing", errno.ENOENT),
        ("none", errno.ENOENT),
        ("d/file/", errno.ENOTDIR),
        ("d", errno.EISDIR),
        ("fifo", errno.EINVAL),
        ("x" * 256, errno.ENAMETOOLONG),
        ("x/" * 2048, errno.ENAMETOOLONG),
    ],
)
def test_open_refuses(root: int, path: str, number: int) -> None:
    with pytest.raises(OSError, match=f"Errno {number}") as caught:
        open_regular_beneath(root, path, 7)
    assert isinstance(caught.value, NotRegular) == (path in ("d", "fifo"))


def test_open_refuses_what_is_too_large_or_no_path(root: int) -> None:
    with pytest.raises(TooLarge):
        open_regular_beneath(root, "d/file", 6)
    with pytest.raises(ValueError, match="null byte"):
        open_regular_beneath(root, "d/file\0", 7)


def test_magic_links_and_other_mounts_are_refused() -> None:
    with open_path("/", os.O_RDONLY | os.O_DIRECTORY) as top, pytest.raises(OSError, match="cross-device"):
        open_beneath(top.fileno(), "/proc/self/status", os.O_RDONLY)
    with open_path("/proc", os.O_RDONLY | os.O_DIRECTORY) as proc:
        for path in ("self/root", "self/exe", f"self/fd/{proc.fileno()}"):
            with pytest.raises(OSError, match="symbolic links"):
                open_beneath(proc.fileno(), path, os.O_RDONLY)


# -- memory files ---------------------------------------------------------------------------------------------------


def test_sealed_memory_cannot_be_changed() -> None:
    with memfd.sealed_bytes("test", b"content") as fd:
        assert os.read(fd.fileno(), 10) == b"content"
        assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        os.fchmod(fd.fileno(), 0o777)  # allowed to the owner, and of no use
        writable = OwnedFd(os.open(link_of(fd.fileno()), os.O_RDWR))
        for attempt in (
            os.pwrite,
            lambda fd, _data, _at: os.ftruncate(fd, 0),
            lambda fd, _data, _at: os.ftruncate(fd, 99),
        ):
            with writable.duplicate() as copy, pytest.raises(PermissionError):
                attempt(copy.fileno(), b"X", 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(writable.fileno(), fcntl.F_ADD_SEALS, 0)
        writable.close()
        assert os.pread(fd.fileno(), 10, 0) == b"content"


def test_a_failed_fill_leaves_nothing_open() -> None:
    def fill(_fd: int) -> None:
        raise ValueError("broken")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="broken"):
        memfd.sealed("test", fill)
    assert os.listdir("/proc/self/fd") == before


# -- processes ------------------------------------------------------------------------------------------------------


def run(argv: list[str], descriptors: dict[int, int] | None = None, **options: bool) -> str:
    """What a program writes to its standard output."""
    into, out = os.pipe()
    with open(into, encoding="utf-8") as reader:
        child = process.spawn(argv, PATH, {1: out, **(descriptors or {})}, **options)
        os.close(out)
        text = reader.read()
        assert child.wait(30) == pidfd.Exit(0, 0)
    return text


def test_a_child_gets_the_descriptors_named_and_no_others() -> None:
    leaky = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    try:
        with memfd.sealed_bytes("given", b"") as given:
            code = (
                "import os; print({n: os.readlink(f'/proc/self/fd/{n}') for n in map(int, os.listdir('/proc/self/fd'))"
            )
            code += " if os.path.exists(f'/proc/self/fd/{n}') or n == 9})"
            seen = run([sys.executable, "-I", "-S", "-c", code], {9: given.fileno()})
    finally:
        os.close(leaky)
    found = dict(item.split(": ") for item in seen.strip()[1:-1].split(", "))
    assert found.pop("1").startswith("'pipe:")
    assert found == {"0": "'/dev/null'", "2": "'/dev/null'", "9": "'/memfd:given (deleted)'"}


def test_descriptors_may_swap_numbers() -> None:
    one, two = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/full", os.O_RDONLY)
    try:
        text = run(["readlink", f"/proc/self/fd/{one}", f"/proc/self/fd/{two}"], {one: two, two: one})
    finally:
        os.close(one)
        os.close(two)
    assert text.split() == ["/dev/full", "/dev/zero"]


def test_new_session_and_group() -> None:
    code = "import os; print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())"
    argv = [sys.executable, "-I", "-S", "-c", code]
    assert run(argv) == "False False\n"
    assert run(argv, new_session=True) == "True True\n"
    assert run(argv, group_leader=True) == "False True\n"


def test_a_child_does_not_ignore_what_python_ignores() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    ignored = int(run(["grep", "SigIgn", "/proc/self/status"]).split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_exit_status_and_signals() -> None:
    failed = process.spawn(["sh", "-c", "exit 7"], PATH, {})
    assert failed.wait(30) == failed.wait() == pidfd.Exit(7, 0)
    sleeping = process.spawn(["sleep", "1000"], PATH, {})
    watcher = pidfd.open_pid(sleeping.pid)
    assert sleeping.wait(0) is None
    assert pidfd.exit_info(watcher) is None
    assert sleeping.send(signal.SIGKILL)
    assert sleeping.wait(30) == pidfd.Exit(0, signal.SIGKILL)
    assert pidfd.wait_exit(watcher, 30)
    assert not sleeping.send(signal.SIGKILL)
    assert not pidfd.send(watcher, signal.SIGKILL)
    assert pidfd.exit_info(watcher) in (pidfd.Exit(0, signal.SIGKILL), None)  # Linux 6.15 tells
    watcher.close()


def test_a_bound_child_does_not_outlive_a_killed_parent() -> None:
    reading, writing = (OwnedFd(fd) for fd in os.pipe2(os.O_CLOEXEC))
    child = 'process.spawn(["sh", "-c", "echo $$; exec sleep 1000"], {}, {1: 1}, bound=True)'
    code = f"import signal; from unikeel.kernel import process; kept = {child}; signal.pause()"
    with reading, writing:
        parent = process.spawn([sys.executable, "-c", code], PATH, {1: writing.fileno()})
        writing.close()
        bound = pidfd.open_pid(int(os.read(reading.fileno(), 64)))
        assert not pidfd.wait_exit(bound, 0)
        parent.send(signal.SIGKILL)
        parent.wait()
        assert pidfd.wait_exit(bound, 60)
        bound.close()


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("argv", [["no-such-program"], ["/nonexistent/program"], ["/dev/null"]])
def test_what_cannot_be_run_is_unavailable(argv: list[str], bound: bool) -> None:
    with pytest.raises(Unavailable, match=argv[0]):
        process.spawn(argv, PATH, {}, bound=bound)


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_no_signal_to_everybody(pid: int) -> None:
    with pytest.raises(InvalidArgument):
        pidfd.open_pid(pid)
