"""Unpacked images, mounted by the kernel, against what GNU tar extracts layer by layer, whiteouts done by hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from layer_archives import Item, archive, directory, file, hard_link, layer_of, opaque, symlink, unpacked, whiteout
from readers_images import noise, tool

LONG = "/".join(["d" * 200] * 15)
CAPABILITY = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
EVERYTHING = [
    [
        *(
            directory(name, 0o755, mtime=5)
            for name in ("bin", "etc", "lib", "usr", "usr/lib", "var", "var/cache", "srv")
        ),
        file("bin/tool", "tool", mode=0o4755, uid=70000, gid=80000, mtime=7),
        file("etc/gone", "gone"),
        directory("old", mtime=4),
        file("old/file", "old"),
        file("var/cache/old", "old"),
        symlink("lib64", "usr/lib"),
        Item("srv/data", noise(300_000, 1), mtime=9),
        Item("srv/zero", bytes(3 << 20)),
        *(file(f"usr/lib/{n:04d} {'n' * 90}", str(n), mtime=n) for n in range(400)),
    ],
    [
        whiteout("etc/gone"),
        whiteout("old"),
        opaque("var/cache"),
        file("var/cache/new", "new", mode=0o2711),
        hard_link("bin/again", "bin/tool"),
        whiteout("bin/tool"),
        file("lib64/through the link", "x"),
        directory("etc", 0o2711, uid=5, gid=6, mtime=123456),
        *(directory("/".join(LONG.split("/")[: n + 1])) for n in range(15)),
        file(f"{LONG}/deep", "deep"),
        file("n" * 255, "n"),
        file("caps", "c", pax={"SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.big": "v" * 3000}),
        Item("char", type=tarfile.CHRTYPE, device=(300, 70000), mode=0o660),
        Item("block", type=tarfile.BLKTYPE, device=(8, 1)),
        Item("fifo", type=tarfile.FIFOTYPE),
        symlink("slow link", "t" * 3000),
        symlink("srv/zero", "nowhere"),
    ],
    [
        file("old", "now a file"),
        hard_link("srv/again", "srv/data"),
        file("srv/data", "another"),
        whiteout("block"),
        directory("usr/lib", 0o700, mtime=8),
        file("latin \udce4", "x"),
    ],
]


def _extract(root: str, layer: bytes, items: list[Item], scratch: Path) -> None:
    """What a layer does to a root file system, whiteouts first: none of these layers has both a whiteout and new content below it."""
    for item in items:
        folder, name = os.path.split(item.name)
        if name == ".wh..wh..opq":
            for child in os.listdir(f"{root}/{folder}"):
                _remove(f"{root}/{folder}/{child}")
    scratch.write_bytes(layer)
    command = [
        "tar",
        "-xpf",
        str(scratch),
        "-C",
        root,
        "--same-owner",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ]
    subprocess.run([*command, "--keep-directory-symlink", "--exclude=.wh.*"], check=True)
    for item in items:
        folder, name = os.path.split(item.name)
        if name.startswith(".wh.") and name != ".wh..wh..opq":
            _remove(f"{root}/{folder}/{name.removeprefix('.wh.')}")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _seen(root: str) -> dict[str, object]:
    """Everything about every path but the times of directories, and which paths are one file."""
    found: dict[str, object] = {}
    first: dict[int, str] = {}
    paths = [os.path.join(above, name) for above, folders, files in os.walk(root) for name in folders + files]
    for path in sorted(paths):
        status = os.lstat(path)
        content: object = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        plain = not stat.S_ISDIR(status.st_mode)
        found[path.removeprefix(root)] = (
            *(oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev),
            *((status.st_size, status.st_mtime_ns, status.st_nlink) if plain else ()),
            *(content, first.setdefault(status.st_ino, path).removeprefix(root)),
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
        )
    return found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_the_kernel_sees_what_tar_extracts(form: int, tmp_path: Path) -> None:
    layers = [[item for item in items if form == tarfile.PAX_FORMAT or not item.pax] for items in EVERYTHING]
    archives = [archive(*items, form=form) for items in layers]
    root, at = str(tmp_path / "root"), str(tmp_path / "mounted")
    os.mkdir(root)
    os.mkdir(at)
    for data, items in zip(archives, layers, strict=True):
        _extract(root, data, items, tmp_path / "layer")
    unpacked(str(tmp_path), *(layer_of(str(tmp_path), data) for data in archives))
    image = str(tmp_path / "image")
    assert subprocess.run(["e2fsck", "-fn", image], capture_output=True).returncode == 0
    tool("mount", "-o", "loop,ro,noload", image, at)
    try:
        assert _seen(at) == _seen(root)
    finally:
        tool("umount", at)
