"""The sample image of the boot suite: a tree with everything that a path can meet, and what each path must give."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from dataclasses import dataclass

from unikeel.boot.readers.contract import PathReason

KERNEL = hashlib.sha256(b"kernel").digest() * 6000
INITRD = b"\x1f\x8b" + b"\0" * (1 << 20) + hashlib.sha256(b"initrd").digest() * 40_000
CONFIG = b'{"com.urunc.unikernel.binary": "L2Jvb3Qva2VybmVs"}'
OWNER = 1234
LINKS = 40


@dataclass(frozen=True)
class Case:
    """A path, and the bytes that it leads to or the reason why it leads nowhere."""

    name: str
    path: str
    expected: bytes | PathReason


CASES = (
    Case("plain", "/boot/kernel", KERNEL),
    Case("sparse", "/boot/initrd", INITRD),
    Case("empty file", "/empty", b""),
    Case("without a leading slash", "boot/kernel", KERNEL),
    Case("slashes and dots", "//boot///../boot/./kernel", KERNEL),
    Case("above the root", "../../boot/kernel", KERNEL),
    Case("absolute link", "/absolute", KERNEL),
    Case("relative link", "/relative", KERNEL),
    Case("link through ..", "/boot/up", KERNEL),
    Case("link that climbs out", "/climbing", KERNEL),
    Case("link to a directory on the way", "/to-boot/kernel", KERNEL),
    Case("long link", "/long-link", KERNEL),
    Case("as many links as allowed", f"/chain{LINKS - 1}", KERNEL),
    Case("hard link", "/hard", KERNEL),
    Case("long name", "/" + "n" * 254, CONFIG),
    Case("name that is not text", "/caf\udce9", CONFIG),
    Case("0600", "/secret", CONFIG),
    Case("setuid", "/setuid", CONFIG),
    Case("mode 0", "/nobody", CONFIG),
    Case("another owner's", "/owned/kernel", CONFIG),
    Case("missing", "/boot/none", PathReason.MISSING),
    Case("missing directory", "/none/kernel", PathReason.MISSING),
    Case("dangling link", "/dangling", PathReason.MISSING),
    Case("link to a magic link", "/magic", PathReason.MISSING),
    Case("one link too many", f"/chain{LINKS}", PathReason.LINK_LOOP),
    Case("loop", "/loop", PathReason.LINK_LOOP),
    Case("loop of two", "/ping", PathReason.LINK_LOOP),
    Case("directory", "/boot", PathReason.NOT_REGULAR),
    Case("root", "/", PathReason.NOT_REGULAR),
    Case("directory with a slash", "/boot/", PathReason.NOT_REGULAR),
    Case("fifo", "/fifo", PathReason.NOT_REGULAR),
    Case("socket", "/socket", PathReason.NOT_REGULAR),
    Case("character device", "/null", PathReason.NOT_REGULAR),
    Case("block device", "/loop0", PathReason.NOT_REGULAR),
    Case("whiteout", "/whiteout", PathReason.NOT_REGULAR),
    Case("link to a device", "/to-null", PathReason.NOT_REGULAR),
    Case("file with a slash", "/boot/kernel/", PathReason.NOT_DIRECTORY),
    Case("beneath a file", "/boot/kernel/x", PathReason.NOT_DIRECTORY),
    Case("up from a file", "/boot/kernel/../kernel", PathReason.NOT_DIRECTORY),
    Case("name of 256 bytes", "/" + "n" * 256, PathReason.NAME_TOO_LONG),
    Case("path of 4096 bytes", "/" + "./" * 2047 + "k", PathReason.NAME_TOO_LONG),
    Case("path of 4095 bytes", "/" * (4095 - len("boot/kernel")) + "boot/kernel", KERNEL),
    Case("empty path", "", PathReason.BAD_NAME),
    Case("NUL", "/boot/kernel\0x", PathReason.BAD_NAME),
    Case("lone surrogate", "/boot/\ud800", PathReason.BAD_NAME),
)

_LINKS = {
    "absolute": "/boot/kernel",
    "relative": "boot/kernel",
    "boot/up": "../boot/kernel",
    "climbing": "../../../../boot/kernel",
    "to-boot": "boot",
    "long-link": "./" * 400 + "boot/kernel",
    "dangling": "/nowhere",
    "magic": "/proc/self/root/boot/kernel",
    "loop": "loop",
    "ping": "pong",
    "pong": "ping",
    "to-null": "null",
}
_NODES = {
    "fifo": (stat.S_IFIFO, 0),
    "socket": (stat.S_IFSOCK, 0),
    "null": (stat.S_IFCHR, os.makedev(1, 3)),
    "loop0": (stat.S_IFBLK, os.makedev(7, 0)),
    "whiteout": (stat.S_IFCHR, os.makedev(0, 0)),
}
_FILES = {
    "boot/kernel": (KERNEL, 0o644),
    "boot/initrd": (INITRD, 0o644),
    "empty": (b"", 0o644),
    "urunc.json": (CONFIG, 0o644),
    "n" * 254: (CONFIG, 0o644),  # mkfs.erofs 1.5 cannot pack the 255 bytes that are allowed
    "caf\udce9": (CONFIG, 0o644),
    "secret": (CONFIG, 0o600),
    "setuid": (CONFIG, 0o4755),
    "nobody": (CONFIG, 0),
    "owned/kernel": (CONFIG, 0o600),
}


def write_tree(directory: str) -> None:
    """Make the tree in an empty directory. Needs CAP_MKNOD and CAP_CHOWN."""
    for name in ("boot", "owned"):
        os.mkdir(os.path.join(directory, name), 0o755)
    for name, (content, mode) in _FILES.items():
        path = os.path.join(directory, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
    for name, target in _LINKS.items():
        os.symlink(target, os.path.join(directory, name))
    for number in range(LINKS + 1):
        os.symlink(f"chain{number - 1}" if number else "boot/kernel", os.path.join(directory, f"chain{number}"))
    for name, (kind, device) in _NODES.items():
        os.mknod(os.path.join(directory, name), kind | 0o666, device)
    os.link(os.path.join(directory, "boot/kernel"), os.path.join(directory, "hard"))
    for name in ("owned/kernel", "owned"):
        os.chown(os.path.join(directory, name), OWNER, OWNER)
    os.chmod(os.path.join(directory, "owned"), 0o700)


def make_image(fstype: str, tree: str, image: str) -> None:
    """Pack a tree into an ext4 or erofs image with the distribution's tools."""
    if fstype == "erofs":
        argv = ["mkfs.erofs", "--quiet", image, tree]
    else:
        argv = ["mke2fs", "-q", "-t", fstype, "-d", tree, image, "16M"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed: {done.stderr}")
