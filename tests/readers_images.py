"""Images for the tests of the readers: made by mke2fs and mkfs.erofs from one sample tree, without privileges."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from unikeel.boot.readers import open_reader
from unikeel.boot.readers.contract import PathError, PathReason, Reader
from unikeel.errors import UnikeelError

LIMIT = 1 << 30
Mutation = Callable[[bytearray], None]

SYS_OPENAT2 = 437
NO_XDEV, NO_MAGICLINKS, IN_ROOT = 0x01, 0x02, 0x10
REASONS = {
    errno.ENOENT: PathReason.MISSING,
    errno.ENOTDIR: PathReason.NOT_DIRECTORY,
    errno.ELOOP: PathReason.LINK_LOOP,
    errno.ENAMETOOLONG: PathReason.NAME_TOO_LONG,
}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Entry:
    """What must be read for one path: size and digest of a regular file; a link's target is seen through lookup."""

    mode: int
    size: int
    digest: str


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress, the same in every run."""
    out = bytearray()
    counter = 0
    while len(out) < size:
        out += hashlib.sha256(f"{seed}/{counter}".encode()).digest()
        counter += 1
    return bytes(out[:size])


def text(size: int) -> bytes:
    """Bytes that compress."""
    lines = "".join(f"line {number * number} of the sample text\n" for number in range(size // 24 + 1))
    return lines.encode()[:size]


def write(path: str, data: bytes) -> None:
    """Write a file, its directories made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def write_sparse(path: str, pieces: dict[int, bytes], size: int) -> None:
    """Write a file with holes."""
    with open(path, "wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def sample_tree(root: str) -> str:
    """A tree with every kind of file that an unprivileged user can make."""
    os.chmod(root, 0o755)
    write(f"{root}/boot/kernel", noise(100_001, 1))
    write(f"{root}/boot/config.txt", text(60_000))
    write(f"{root}/urunc.json", b'{"com.urunc.unikernel.binary": "L2Jvb3Qva2VybmVs"}')
    for size in (0, 1, 59, 60, 61, 100, 155, 1000, 4095, 4096, 4097):
        write(f"{root}/sizes/{size}", noise(size, size))
    for number in range(60):
        write(f"{root}/many/file with a rather long name {number:04d}", str(number).encode())
    write_sparse(f"{root}/boot/holes", {8192: noise(5000, 2), 40960: noise(10, 3)}, 100_000)
    pieces = {8192 * number: noise(1024, number) for number in range(60)}
    write_sparse(f"{root}/boot/pieces", pieces, 8192 * 60)
    os.symlink("boot/kernel", f"{root}/short")
    os.symlink("/boot/../boot/kernel", f"{root}/absolute")
    os.symlink("./" * 60 + "boot/kernel", f"{root}/long")
    os.symlink("../../../short", f"{root}/boot/up")
    os.symlink("nowhere", f"{root}/dangling")
    os.symlink("loop", f"{root}/loop")
    os.mkfifo(f"{root}/fifo")
    os.makedirs(f"{root}/empty", 0o700)
    os.makedirs(os.fsencode(f"{root}/") + b"latin \xe4")
    os.chmod(f"{root}/boot/kernel", 0o600)
    return root


def expected(root: str) -> dict[str, Entry]:
    """What a reader must find for every path of a tree (without lost+found)."""
    result = {"/": Entry(os.lstat(root).st_mode, 0, "")}
    for above, directories, files in os.walk(root):
        for name in directories + files:
            path = f"{above}/{name}"
            status = os.lstat(path)
            digest = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                digest = os.readlink(path)
            result[path[len(root) :]] = Entry(
                status.st_mode, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, digest
            )
    return result


def found(reader: Reader) -> dict[str, Entry]:
    """What a reader finds for every path; regular files are read by both ways, which must agree."""
    result = {}
    for path, info in reader.tree():
        if path.startswith("/lost+found"):
            continue
        digest = content_digest(reader, path) if stat.S_ISREG(info.mode) else ""
        if stat.S_ISLNK(info.mode):
            digest = os.fsdecode(reader.readlink(path))
        result[path] = Entry(info.mode, 0 if stat.S_ISDIR(info.mode) else info.size, digest)
    return result


def content_digest(reader: Reader, path: str) -> str:
    """The SHA-256 of a regular file, read in pieces and copied, which must agree."""
    file = reader.open(path, LIMIT)
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    copy = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        file.copy_to(copy)
        assert os.fstat(copy).st_size == file.info.size
        os.lseek(copy, 0, os.SEEK_SET)
        with os.fdopen(os.dup(copy), "rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == digest.hexdigest(), path
    finally:
        os.close(copy)
    return digest.hexdigest()


def tool(*command: str) -> str:
    """Run a tool that must succeed; its standard output."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{command} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def debugfs(image: str, *requests: str) -> str:
    """Run debugfs requests that may write to the image."""
    return "".join(tool("debugfs", "-w", "-R", request, image) for request in requests)


def make_ext(image: str, tree: str | None, *options: str, size: str = "6M") -> str:
    """An ext image of a tree, reproducible."""
    source = ["-d", tree] if tree else []
    uuid = "12345678-1234-5678-1234-567812345678"
    tool("mke2fs", "-q", "-F", "-U", uuid, "-E", f"hash_seed={uuid}", *source, *options, image, size)
    return image


def make_erofs(image: str, tree: str, *options: str) -> str:
    """An erofs image of a tree."""
    tool("mkfs.erofs", "--quiet", "-T0", "-U12345678-1234-5678-1234-567812345678", *options, image, tree)
    return image


class Opened:
    """A reader together with its descriptor, for ``with``."""

    def __init__(self, image: str) -> None:
        self._fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._reader = open_reader(self._fd)
        except UnikeelError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Reader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        os.close(self._fd)


def mutated(image: str, change: Mutation) -> None:
    """Change an image's bytes in place."""
    with open(image, "r+b") as file:
        data = bytearray(file.read())
        change(data)
        file.seek(0)
        file.write(data)


def by_kernel(root: int, path: str) -> PathReason | int:
    """What openat2 says about a path beneath the directory ``root``: the reason, or the inode number."""
    how = struct.pack("<QQQ", os.O_PATH | os.O_CLOEXEC, 0, IN_ROOT | NO_MAGICLINKS | NO_XDEV)
    raw = ctypes.c_char_p(path.encode("utf-8", "surrogateescape"))
    fd = _libc.syscall(ctypes.c_long(SYS_OPENAT2), ctypes.c_int(root), raw, how, ctypes.c_size_t(len(how)))
    if fd < 0:
        return REASONS[ctypes.get_errno()]
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def by_reader(reader: Reader, path: str) -> PathReason | int:
    """What a reader says about a path, in the same words as :func:`by_kernel`."""
    try:
        return reader.lookup(path).inode
    except PathError as error:
        return error.reason
