"""The kernel package's privileged half: detached mounts, loop devices, id-mapped mounts."""

from __future__ import annotations

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from unikeel.kernel import idmap, loop, mounts
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.paths import open_beneath


@pytest.fixture
def image(tmp_path: os.PathLike[str]) -> str:
    path = os.path.join(tmp_path, "image")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", path, "4M"], check=True)
    return path


def mount_table() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return sorted(file)


def test_detached_mount_is_nobody_elses() -> None:
    before = mount_table()
    with mounts.detached_mount("tmpfs", None, (("size", "1m"),), mounts.Attributes(read_only=False)) as mount:
        with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=mount.fileno()), "w") as file:
            file.write("text")
        assert mount_table() == before
        kept = open_beneath(mount.fileno(), "/file", os.O_RDONLY)
    with kept:
        assert os.read(kept.fileno(), 10) == b"text"


def test_attach_and_unmount(tmp_path: os.PathLike[str]) -> None:
    target = os.fspath(tmp_path)
    assert not mounts.is_mount_point(target)
    with mounts.detached_mount("tmpfs", None) as mount:
        mounts.move_mount(mount, target)
    assert mounts.is_mount_point(target)
    with pytest.raises(OSError, match="Read-only file system"):
        os.mkdir(os.path.join(target, "x"))
    mounts.unmount(target)
    assert not mounts.is_mount_point(target)
    assert not mounts.is_mount_point(os.path.join(target, "missing"))


@pytest.mark.parametrize(
    ("fstype", "source", "options", "number", "words"),
    [
        ("nosuchfs", "/dev/null", (), errno.ENODEV, "nosuchfs"),
        ("ext4", "/dev/null", (), errno.ENOTBLK, "/dev/null"),
        ("ext4", "/nonexistent", (), errno.ENOENT, "/nonexistent"),
        ("tmpfs", None, (("colour", "red"),), errno.EINVAL, "Unknown parameter 'colour'"),
    ],
)
def test_mount_errors_say_what_the_kernel_said(
    fstype: str, source: str | None, options: tuple[tuple[str, str], ...], number: int, words: str
) -> None:
    with pytest.raises(mounts.MountError) as caught:
        mounts.detached_mount(fstype, source, options)
    assert caught.value.errno == number
    assert words in str(caught.value)


def test_sealed_clone_forbids_changes(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w") as file:
        file.write("text")
    with mounts.sealed_clone(os.fspath(tmp_path)) as clone:
        for attempt in (
            lambda: os.open("file", os.O_WRONLY, dir_fd=clone.fileno()),
            lambda: os.unlink("file", dir_fd=clone.fileno()),
            lambda: os.chmod("file", 0o777, dir_fd=clone.fileno()),
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                attempt()


def test_a_loop_device_ends_with_its_last_user(image: str) -> None:
    with open(image, "rb") as file:
        assert loop.find(file.fileno()) is None
        device = loop.attach(file.fileno())
        assert device.status.backs(os.fstat(file.fileno()))
        assert (device.status.read_only, device.status.autoclear, device.status.direct_io) == (True, True, True)
        found = loop.find(file.fileno())
        assert found is not None
        assert found.path == device.path
        mount = mounts.detached_mount("ext4", device.path, (("ro", None), ("noload", None)))
        device.close()
        found.close()
        assert loop.attached_to(os.stat(image)) == [os.path.basename(device.path)]
        mount.close()
        assert loop.attached_to(os.stat(image)) == []


def test_a_loop_device_does_direct_io_when_it_is_told_to(image: str) -> None:
    with open(image, "rb") as file:
        device = loop.attach(file.fileno(), direct=False)
        assert not device.status.direct_io
        with mounts.detached_mount("ext4", device.path, (("ro", None), ("noload", None))) as mount:
            loop.use_direct_io(device)
            status = loop.status_of(device.fd)
            assert status is not None
            assert status.direct_io
            device.close()
            assert os.stat("lost+found", dir_fd=mount.fileno())
    assert loop.attached_to(os.stat(image)) == []


def test_somebody_elses_writable_loop_device_is_not_taken(image: str) -> None:
    name = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        with open(image, "rb") as file:
            assert loop.find(file.fileno()) is None
            with loop.attach(file.fileno()).fd as own:
                status = loop.status_of(own)
                assert status is not None
                assert f"/dev/loop{status.number}" != name
    finally:
        subprocess.run(["losetup", "-d", name], check=True)


def test_many_loop_devices_at_once(tmp_path: os.PathLike[str]) -> None:
    images = [os.path.join(tmp_path, f"image{n}") for n in range(16)]
    for path in images:
        with open(path, "wb") as file:
            file.truncate(1 << 20)

    def attach(path: str) -> loop.LoopDevice:
        with open(path, "rb") as file:
            return loop.attach(file.fileno())

    with ThreadPoolExecutor(16) as pool:
        devices = list(pool.map(attach, images))
    for path, device in zip(images, devices, strict=True):
        assert device.status.backs(os.stat(path))
        device.close()


def test_a_file_system_without_direct_io_is_served_too() -> None:
    fd = os.memfd_create("image")
    with OwnedFd(fd):
        os.truncate(fd, 1 << 20)
        for writable in (False, True):
            device = loop.attach(fd, writable=writable)
            assert device.status.read_only is not writable
            device.close()


def test_single_mapping() -> None:
    with idmap.single_mapping((0, 0), (4242, 4343)) as namespace:
        argv = [
            "nsenter",
            f"--user=/proc/self/fd/{namespace.fileno()}",
            "cat",
            "/proc/self/uid_map",
            "/proc/self/gid_map",
        ]
        done = subprocess.run(argv, pass_fds=[namespace.fileno()], capture_output=True, text=True)
    assert done.stdout.split() == ["0", "4242", "1", "0", "4343", "1"]


def test_single_mapping_leaves_no_child_and_no_signal_mask() -> None:
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(20):
        idmap.single_mapping((0, 0), (4242, 4242)).close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | 0x40000000)


def test_single_mapping_refuses_what_cannot_be() -> None:
    from unikeel.errors import Unavailable

    with pytest.raises(Unavailable):
        idmap.single_mapping((-1, 0), (4242, 4242))
