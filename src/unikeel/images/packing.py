"""A layer's tar from a directory: the same content gives the same bytes (POSIX.1-2017, pax interchange format).

Entries are sorted, owned by 0:0, of one time; pax headers appear only where ustar has no room. Modes, symbolic links, hard
links, device nodes and fifos are those of the tree; extended attributes are not taken, since the builder's host puts some there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from unikeel.images.sources import Window
from unikeel.lean import Final, Protocol

_BLOCK: Final = 512
_MAX_ENTRIES: Final = 1_000_000
_MAX_LINKS: Final = 40
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


class Sink(Protocol):
    """What takes a tar's bytes."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append."""


@dataclass(frozen=True)
class Item:
    """One entry of a layer, by its path without the leading slash.

    ``mode`` is st_mode; ``link`` a symbolic link's target, ``device`` a node's number, ``size`` a regular file's bytes,
    ``identity`` device and inode of a file that has several names. The bytes are those of ``host``, or ``data``.
    """

    path: str
    mode: int
    host: str = ""
    data: bytes = b""
    size: int = 0
    link: str = ""
    device: int = 0
    identity: tuple[int, int] | None = None


Items = dict[str, Item]


def scan(tree: str) -> Items:
    """All entries of a directory, without itself.

    :raise NotFound: there is no such directory. :raise InvalidArgument: it has a socket. :raise PermissionDenied: part of it
        may not be read.
    """
    found: Items = {}
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        for name in _names(os.path.join(tree, parent)):
            path = f"{parent}/{name}" if parent else name
            found[path] = _item(os.path.join(tree, path), path)
            if stat.S_ISDIR(found[path].mode):
                waiting.append(path)
        if len(found) > _MAX_ENTRIES:
            raise InvalidArgument(f"{tree} has more than {_MAX_ENTRIES} files")
    return found


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no directory {directory}") from error
    except PermissionError as error:
        raise PermissionDenied(f"{directory} may not be read") from error


def _item(host: str, path: str) -> Item:
    info = os.lstat(host)
    mode = info.st_mode
    if stat.S_ISLNK(mode):
        return Item(path, stat.S_IFLNK | 0o777, link=os.readlink(host))
    if stat.S_ISREG(mode):
        identity = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        return Item(path, mode, host, size=info.st_size, identity=identity)
    if stat.S_ISSOCK(mode):
        raise InvalidArgument(f"{host} is a socket, which no image can hold", "remove it")
    return Item(path, mode, device=info.st_rdev)


def add_file(items: Items, path: str, host: str) -> None:
    """Put one file of the host at a path (absolute); it replaces what the tree has there. Only whether it is executable is
    taken over from its mode: a single file's mode is a matter of the builder's umask.

    :raise NotFound: there is none. :raise InvalidArgument: it is not a regular file.
    """
    try:
        info = os.stat(host)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {host}, which is to become {path}") from error
    if not stat.S_ISREG(info.st_mode):
        raise InvalidArgument(f"{host}, which is to become {path}, is not a regular file")
    mode = 0o755 if info.st_mode & 0o111 else 0o644
    _put(items, Item(path.lstrip("/"), stat.S_IFREG | mode, host, size=info.st_size))


def add_data(items: Items, path: str, data: bytes) -> None:
    """Put some bytes at a path (absolute)."""
    _put(items, Item(path.lstrip("/"), stat.S_IFREG | 0o644, data=data, size=len(data)))


def _put(items: Items, item: Item) -> None:
    parent = os.path.dirname(item.path)
    while parent:
        above = items.setdefault(parent, Item(parent, stat.S_IFDIR | 0o755))
        if not stat.S_ISDIR(above.mode):
            raise InvalidArgument(f"/{item.path} cannot be put into the image: /{parent} is not a directory")
        parent = os.path.dirname(parent)
    old = items.get(item.path)
    if old is not None and stat.S_ISDIR(old.mode):
        raise InvalidArgument(f"/{item.path} cannot be put into the image: a directory is there")
    items[item.path] = item


def merge(layers: Iterable[Items]) -> Items:
    """What a container sees of these layers: later over earlier, whiteouts applied (OCI image specification, layer.md)."""
    merged: Items = {}
    for layer in layers:
        for path in layer:
            parent, name = os.path.split(path)
            if name == _OPAQUE:
                _hide(merged, parent, itself=False)
            elif name.startswith(_WHITEOUT):
                _hide(merged, os.path.join(parent, name.removeprefix(_WHITEOUT)), itself=True)
        for path, item in layer.items():
            if os.path.basename(path).startswith(_WHITEOUT):
                continue
            if path in merged and not stat.S_ISDIR(item.mode):
                _hide(merged, path, itself=True)
            merged[path] = item
    return merged


def _hide(merged: Items, path: str, *, itself: bool) -> None:
    below = path + "/" if path else ""
    for name in [name for name in merged if name.startswith(below) and name != path]:
        del merged[name]
    if itself:
        merged.pop(path, None)


def regular_file(merged: Mapping[str, Item], path: str) -> Item | None:
    """The regular file at a path (absolute) of an image, its symbolic links followed inside the image; None if there is none."""
    rest = [part for part in reversed(path.split("/")) if part]
    here: list[str] = []
    links = 0
    while rest:
        part = rest.pop()
        if part in (".", ".."):
            here = here[:-1] if part == ".." else here
            continue
        item = merged.get("/".join([*here, part]))
        if item is None:
            return None
        if stat.S_ISLNK(item.mode):
            links += 1
            if links > _MAX_LINKS:
                return None
            here = [] if item.link.startswith("/") else here
            rest.extend(part for part in reversed(item.link.split("/")) if part)
            continue
        here.append(part)
    found = merged.get("/".join(here))
    return found if found is not None and stat.S_ISREG(found.mode) else None


def write_tar(items: Mapping[str, Item], out: Sink, time: int, tell: Callable[[int], None]) -> None:
    """Write a layer.

    :param time: of all entries, in seconds since 1970. :param tell: called with each piece's size.
    :raise FailedPrecondition: a file was changed meanwhile. :raise PermissionDenied: one may not be read.
    """
    first: dict[tuple[int, int], str] = {}
    for path in sorted(items):
        item = items[path]
        known = first.setdefault(item.identity, path) if item.identity else path
        _write_header(item, out, time, known if known != path else "")
        if stat.S_ISREG(item.mode) and known == path:
            _write_body(item, out, tell)
    out.write(bytes(2 * _BLOCK))


def _write_header(item: Item, out: Sink, time: int, same_as: str) -> None:
    import tarfile

    info = tarfile.TarInfo(item.path)
    info.mtime = time
    info.mode = stat.S_IMODE(item.mode)
    info.type = tarfile.LNKTYPE if same_as else _type(item.mode)
    info.linkname = same_as or item.link
    if info.type == tarfile.REGTYPE:
        info.size = item.size
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(item.device), os.minor(item.device)
    out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _type(mode: int) -> bytes:
    import tarfile

    types = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    return types[stat.S_IFMT(mode)]


def _write_body(item: Item, out: Sink, tell: Callable[[int], None]) -> None:
    if item.host:
        with _opened(item) as window:
            for chunk in window.chunks():
                out.write(chunk)
                tell(len(chunk))
    else:
        out.write(item.data)
        tell(len(item.data))
    out.write(bytes(-item.size % _BLOCK))


def _opened(item: Item) -> Window:
    try:
        fd = os.open(item.host, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionDenied(f"{item.host} may not be read") from error
    except OSError as error:
        raise Unavailable(f"{item.host} cannot be opened: {os.strerror(error.errno or 0)}") from error
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size != item.size:
        os.close(fd)
        raise FailedPrecondition(f"{item.host} was changed while it was packed", "build again")
    return Window(fd, 0, item.size, item.host, owned=True)
