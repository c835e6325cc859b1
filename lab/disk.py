"""What the virtual machine boots from: a disk with the trixie root, its kernel and its initrd; and a small disk with the working tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Final, NamedTuple

from lab import bytecode, images, root, tools
from lab.commands import Tell, run
from lab.errors import LabError
from lab.paths import PROJECT, cache, locked

_SIZE: Final = "12G"
#: Of the working tree. ``build/samples`` comes without what is larger than this.
_TREE: Final = (
    "src",
    "tests",
    "lab",
    "samples",
    "scripts",
    "docs",
    "deploy",
    "pyproject.toml",
    "build/launcher",
    "build/samples",
)
_LARGEST: Final = 128 << 20
_IGNORED: Final = ("__pycache__", ".lock", "*.egg-info", ".verify-*")


class Disk(NamedTuple):
    """The files that a machine is started with."""

    image: str
    kernel: str
    initrd: str


def opened() -> Disk:
    """What was built before. :raise LabError: it was not, or is older than the root."""
    directory = cache("disk")
    found = Disk(*(os.path.join(directory, name) for name in ("root.ext4", "vmlinuz", "initrd")))
    if _identity() != root.opened("trixie").identity or not all(map(os.path.exists, found)):
        raise LabError("the virtual machine's disk is not built, or older than its root: make lab builds it")
    return found


def built(tell: Tell) -> Disk:
    """The disk, made from the trixie root if that changed."""
    source = root.opened("trixie")
    with locked(cache("disk.lock")), locked(source.lock, shared=True):
        if _identity() != source.identity:
            tell("disk: a file system with the trixie root, its kernel and initrd")
            _build(source)
    return opened()


def tree(target: str) -> str:
    """Make the disk of the working tree as it is now, with bytecode for trixie's interpreter, and with the lab's images and tools."""
    stage = target + ".tree"
    try:
        for name in _TREE:
            _copy(os.path.join(PROJECT, name), os.path.join(stage, name))
        _copy(bytecode.compiled(root.opened("trixie")), os.path.join(stage, "src"), ignored=())
        for name in ("busybox", "pause"):
            _copy(images.archive(name), os.path.join(stage, ".lab", f"{name}.tar"))
        if crictl := tools.crictl():
            _copy(crictl, os.path.join(stage, ".lab", "tools", "crictl"))
        size = sum(
            os.lstat(os.path.join(where, name)).st_size + 4096 for where, _, names in os.walk(stage) for name in names
        )
        megabytes = (size >> 20) * 9 // 8 + 16
        options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0", "-b", "4096", "-d", stage]
        run(["mke2fs", *options, target, f"{megabytes}M"], timeout=300)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


def in_tree(path: str) -> str:
    """Where a file of the host lies on the working tree's disk; an empty text if it is not there."""
    relative = os.path.relpath(os.path.abspath(path), PROJECT)
    for name in ("busybox", "pause"):
        if os.path.abspath(path) == images.archive(name):
            return f"/unikeel/.lab/{name}.tar"
    if relative.startswith(("src/", "tests/", "build/samples/")) and os.path.getsize(path) <= _LARGEST:
        return f"/unikeel/{relative}"
    return ""


def _build(source: root.LabRoot) -> None:
    part, final = cache("disk.part"), cache("disk")
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    try:
        for name in ("vmlinuz", "initrd"):
            shutil.copyfile(_newest(os.path.join(source.path, "boot"), name), os.path.join(part, name))
        image = os.path.join(part, "root.ext4")
        run(
            [
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1",
                "-d",
                source.path,
                image,
                _SIZE,
            ],
            timeout=600,
        )
        with open(os.path.join(part, "identity.json"), "w", encoding="utf-8") as file:
            json.dump({"root": source.identity}, file)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _newest(directory: str, kind: str) -> str:
    found = [name for name in os.listdir(directory) if name.startswith(kind)]
    if not found:
        raise LabError(f"the trixie root has no {kind} in /boot")
    return os.path.join(directory, max(found))


def _identity() -> str:
    try:
        with open(cache("disk", "identity.json"), encoding="utf-8") as file:
            return str(json.load(file)["root"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def _copy(source: str, target: str, ignored: tuple[str, ...] = _IGNORED) -> None:
    """Copy a file or a tree, into what is there; times are kept, since bytecode is found by them. What vanishes meanwhile is left out."""
    if not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    excluded = [word for pattern in ignored for word in ("--exclude", pattern)]
    large = [word for name in _large(source) for word in ("--exclude", name)]
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        pack = ["tar", "-C", source, *excluded, *large, "--ignore-failed-read", "-cf", "-", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packing:
            unpacked = subprocess.run(
                ["tar", "-C", target, "-xf", "-"], stdin=packing.stdout, capture_output=True, check=False, timeout=300
            )
        if unpacked.returncode:
            raise LabError(f"{source} cannot be copied: {unpacked.stderr.decode(errors='replace').strip()[:300]}")
    else:
        shutil.copy2(source, target)


def _large(directory: str) -> list[str]:
    return (
        [entry.name for entry in os.scandir(directory) if entry.is_file() and entry.stat().st_size > _LARGEST]
        if os.path.isdir(directory)
        else []
    )
