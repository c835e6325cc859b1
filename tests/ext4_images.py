"""ext4 images for tests, looked at with e2fsprogs' ``e2fsck`` and ``debugfs``, which need no privileges for files."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass

from unikeel.snapshots.ext4 import Data, ImageStats, Node, write_image

UUID = bytes(range(16))
_FIELDS = re.compile(
    r"Inode: (?P<ino>\d+) +Type: (?P<type>[\w ]+?) +Mode: +(?P<mode>\d+).*?"
    r"User: +(?P<uid>\d+) +Group: +(?P<gid>\d+) .*?Size: (?P<size>\d+).*?"
    r"Links: (?P<links>\d+) +Blockcount: (?P<sectors>\d+).*?"
    r"mtime: 0x(?P<mtime>[0-9a-f]+):(?P<extra>[0-9a-f]+)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Stat:
    """What debugfs tells of an inode."""

    ino: int
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    sectors: int
    mtime: int
    text: str


def directory(mode: int = 0o755, **more: object) -> Node:
    return Node(stat.S_IFDIR | mode, **more)  # type: ignore[arg-type]  # a test's shorthand


def regular(size: int = 0, offset: int = 0, mode: int = 0o644, **more: object) -> Node:
    return Node(stat.S_IFREG | mode, data=Data(0, offset, size), **more)  # type: ignore[arg-type]  # as above


def symlink(target: bytes) -> Node:
    return Node(stat.S_IFLNK | 0o777, target=target)


def root(**children: Node) -> Node:
    top = directory()
    top.children = {name.encode(): child for name, child in children.items()}
    return top


def write(path: str, top: Node, source: bytes = b"", free_bytes: int = 1 << 20) -> ImageStats:
    """Writes a tree whose files' data comes out of ``source``."""
    feed = os.memfd_create("source")
    os.write(feed, source)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return write_image(fd, top, uuid=UUID, free_bytes=free_bytes, open_data=lambda _: feed)
    finally:
        os.close(fd)
        os.close(feed)


def check(path: str) -> None:
    """Fails with what e2fsck says unless it finds nothing."""
    found = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def debugfs(path: str, *commands: str) -> bytes:
    """What debugfs answers to commands, its echo of each command included."""
    script = "\n".join(commands).encode() + b"\n"
    found = subprocess.run(["debugfs", "-f", "-", path], input=script, capture_output=True, check=True)
    return found.stdout


def stats(path: str, *names: str) -> dict[str, Stat]:
    """What debugfs tells of some files."""
    answer = debugfs(path, *(f"stat {name}" for name in names)).decode()
    parts = answer.split("debugfs: stat ")[1:]
    assert len(parts) == len(names)
    return {name: _stat(part) for name, part in zip(names, parts, strict=True)}


def content(path: str, name: str) -> bytes:
    return debugfs(path, f"cat {name}").split(b"\n", 1)[1]


def listing(path: str, name: str = "/") -> list[str]:
    """The names in a directory, in their order on disk."""
    lines = debugfs(path, f"ls -p {name}").decode().splitlines()[1:]
    return [line.split("/")[5] for line in lines if line]


def _stat(text: str) -> Stat:
    found = _FIELDS.search(text)
    assert found, text
    extra = int(found["extra"], 16)
    low = int(found["mtime"], 16)
    seconds = (low - (1 << 32) if low >> 31 else low) + ((extra & 3) << 32)
    numbers = {key: int(found[key]) for key in ("ino", "uid", "gid", "size", "links", "sectors")}
    return Stat(
        type=found["type"], mode=int(found["mode"], 8), mtime=seconds * 10**9 + (extra >> 2), text=text, **numbers
    )
