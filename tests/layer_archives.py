"""Layers for tests: archives made by ``tarfile`` where they are good, from raw headers where they are not."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from typing import TypeAlias

from unikeel.images.layers import Layer, Limits
from unikeel.images.tarball import entries
from unikeel.images.tree import Tree
from unikeel.images.unpack import UnpackResult, unpack
from unikeel.snapshots.ext4 import Node

PLAIN = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Item:
    """One entry of a good archive."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1000
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, content: str = "", **more: object) -> Item:
    return Item(name, content.encode(), **more)  # type: ignore[arg-type]  # a test's shorthand


def directory(name: str, mode: int = 0o755, **more: object) -> Item:
    return Item(name, type=tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]  # a test's shorthand


def symlink(name: str, target: str) -> Item:
    return Item(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Item:
    return Item(name, type=tarfile.LNKTYPE, link=target)


def whiteout(name: str) -> Item:
    head, slash, tail = name.rpartition("/")
    return Item(f"{head}{slash}.wh.{tail}")


def opaque(name: str) -> Item:
    return Item(f"{name}/.wh..wh..opq")


def archive(*items: Item, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A good archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.mode = item.type, item.link, item.mode
            info.uid, info.gid, info.mtime = item.uid, item.gid, item.mtime
            info.devmajor, info.devminor = item.device
            info.size, info.pax_headers = len(item.content), dict(item.pax)
            tar.addfile(info, io.BytesIO(item.content))
    return out.getvalue()


def header(
    name: bytes = b"file", *, flag: bytes = b"0", size: bytes = b"00000000000\0", link: bytes = b"", **fields: bytes
) -> bytes:
    """One raw ustar header with a right checksum; every field can be anything."""
    block = bytearray(512)

    def put(offset: int, value: bytes) -> None:
        block[offset : offset + len(value)] = value

    put(0, name)
    put(100, fields.get("mode", b"0000644\0"))
    put(108, fields.get("uid", b"0000000\0"))
    put(116, fields.get("gid", b"0000000\0"))
    put(124, size)
    put(136, fields.get("mtime", b"00000000000\0"))
    put(156, flag)
    put(157, link)
    put(257, fields.get("magic", b"ustar\x0000"))
    put(329, fields.get("major", b"0000000\0"))
    put(337, fields.get("minor", b"0000000\0"))
    put(345, fields.get("prefix", b""))
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def extended(flag: bytes, content: bytes) -> bytes:
    """A PAX header or a GNU long name."""
    return header(b"extended", flag=flag, size=b"%011o\0" % len(content)) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, which counts its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


END = bytes(1024)
Layers: TypeAlias = "tuple[bytes, ...]"


def merged(*layers: bytes, limits: Limits | None = None) -> dict[str, Node]:
    """All paths of the tree that these plain archives make; the root is the empty path."""
    tree = Tree(limits or Limits())
    for number, data in enumerate(layers):
        tree.begin(number, f"sha256:layer{number}")
        with tempfile.TemporaryFile() as out:
            out.write(data)
            out.flush()
            for entry in entries(out.fileno(), len(data)):
                tree.add(entry)
    return flat(tree.root)


def flat(root: Node) -> dict[str, Node]:
    """A tree as paths."""
    found, waiting = {}, [("", root)]
    while waiting:
        path, node = waiting.pop()
        found[path] = node
        for name, child in (node.children or {}).items():
            waiting.append((f"{path}/{os.fsdecode(name)}".removeprefix("/"), child))
    return found


def layer_of(folder: str, data: bytes, *, stored: bytes | None = None, media_type: str = PLAIN) -> Layer:
    """A layer with this plain archive, its blob being ``stored`` (by default the archive itself)."""
    blob = data if stored is None else stored
    digest = hashlib.sha256(blob).hexdigest()
    path = os.path.join(folder, digest)
    with open(path, "wb") as out:
        out.write(blob)
    return Layer("sha256:" + hashlib.sha256(data).hexdigest(), "sha256:" + digest, media_type, path)


def unpacked(folder: str, *layers: Layer, name: str = "image", **more: object) -> UnpackResult:
    """Unpacks layers into ``folder/name``."""
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return unpack(layers, fd, scratch=folder, uuid_seed="seed", **more)  # type: ignore[arg-type]  # a test's shorthand
    finally:
        os.close(fd)
