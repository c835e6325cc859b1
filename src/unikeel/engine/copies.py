"""Volumes as copies, where nothing can be shared: files and directories that are small, read once at the start; what the guest writes to a copy is lost with it.

What is not as a user may think is told: copies that were to be written to, and sockets, fifos and devices, of which there is no copy; a volume that is needed and has some is refused.

They go into the guest's initrd, or, of a guest that only mounts disks, each directory onto a read-only disk in memory, an ext4 file system of our own writing.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from unikeel.errors import InvalidArgument
from unikeel.guests.own_init import COPIES
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.memfd import sealed, sealed_bytes
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.model.cpio import File
from unikeel.model.names import quote
from unikeel.model.plan import Attached, DiskSpec, Mounted
from unikeel.model.volumes import Volume
from unikeel.model.ways import COUNT_LIMIT, FILE_LIMIT, FILES_LIMIT
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.snapshots.ext4 import Node

#: The most things that a message names.
_NAMED: Final = 5
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Files(NamedTuple):
    """Copies as files of an archive, and, if they are apart, where our own init mounts them."""

    files: tuple[tuple[str, File], ...]
    mounted: tuple[Mounted, ...]
    told: tuple[str, ...]


class Disks(NamedTuple):
    """Copies as disks, and their descriptors."""

    extra: tuple[Attached, ...]
    fds: tuple[int, ...]
    told: tuple[str, ...]


class _Budget:
    """What may still be copied, and what a user is to be told, a sentence each."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.bytes = FILES_LIMIT
        self.count = COUNT_LIMIT

    def take(self, size: int) -> None:
        """One more file. :raise InvalidArgument: it is one too many."""
        self.bytes -= size
        self.count -= 1
        if self.bytes < 0 or self.count < 0:
            raise InvalidArgument(
                f"the volumes have more than {FILES_LIMIT} bytes, or {COUNT_LIMIT} files, and this guest can only be given copies"
            )


def files(volumes: Sequence[Volume], *, apart: bool) -> Files:
    """The volumes' content for the initrd: beneath :data:`unikeel.guests.own_init.COPIES` if ``apart``, else where each is to be.

    :raise InvalidArgument: one that is needed is not there, is too large, or is a directory that is to be written to.
    """
    budget = _Budget()
    found: list[tuple[str, File]] = []
    mounted: list[Mounted] = []
    for number, volume in enumerate(volumes):
        place = f"{COPIES}/{number}" if apart else volume.target
        try:
            copied = list(_copied(volume, place, budget))
        except InvalidArgument as error:
            budget.told.append(_told(volume, error))
            continue
        found += copied
        if not volume.read_only:
            budget.told.append(f"the guest has a copy of the volume at {volume.target}: what it writes there is lost")
        if apart:
            mounted.append(Mounted(str(number), volume.target, volume.read_only))
    return Files(tuple(found), tuple(mounted), tuple(budget.told))


def disks(volumes: Sequence[Volume], stack: ExitStack) -> Disks:
    """Each directory as a disk; ``stack`` closes the descriptors. :raise InvalidArgument: as :func:`files`, or one that is needed is a file."""
    budget = _Budget()
    extra: list[Attached] = []
    fds: list[int] = []
    for number, volume in enumerate(volumes):
        try:
            made = stack.enter_context(_disk(volume, budget))
        except InvalidArgument as error:
            budget.told.append(_told(volume, error))
            continue
        if not volume.read_only:
            budget.told.append(f"the guest has a copy of the volume at {volume.target}, and cannot write to it")
        extra.append(Attached(DiskSpec("raw", read_only=True, id=f"copy{number}"), volume.target))
        fds.append(made.fileno())
    return Disks(tuple(extra), tuple(fds), tuple(budget.told))


def _told(volume: Volume, error: InvalidArgument) -> str:
    """What is said of an optional volume that cannot be given; of one that is needed the error is raised."""
    if not volume.optional:
        raise error
    return f"the volume at {volume.target} is left out: {error.message}"


def _opened(volume: Volume) -> tuple[OwnedFd, os.stat_result]:
    try:
        file = OwnedFd(os.open(volume.source, _OPEN))
    except OSError as error:
        raise InvalidArgument(f"the volume {quote(volume.source)} cannot be read: {error.strerror}") from None
    info = os.fstat(file.fileno())
    if stat.S_ISDIR(info.st_mode) and not volume.read_only and not volume.optional:
        file.close()
        raise InvalidArgument(
            f"the directory {quote(volume.source)} is to be written to, and this guest can only be given a copy of it",
            "let it be read-only (HOST:GUEST:ro), or give the guest a disk (HOST:GUEST:disk)",
        )
    return file, info


def _copied(volume: Volume, place: str, budget: _Budget) -> Iterator[tuple[str, File]]:
    opened, info = _opened(volume)
    with opened as file:
        if stat.S_ISREG(info.st_mode):
            yield place, _content(volume.source, file, info, budget)
        elif stat.S_ISDIR(info.st_mode):
            yield place, File(b"", stat.S_IMODE(info.st_mode), stat.S_IFDIR, (info.st_uid, info.st_gid))
            odd: list[str] = []
            yield from _directory(volume.source, file, place, budget, odd)
            if odd:
                _refuse_or_tell(volume, odd, budget)
        else:
            raise InvalidArgument(
                f"the volume {quote(volume.source)} is neither a file nor a directory, and this guest can only be given copies of those"
            )


def _refuse_or_tell(volume: Volume, odd: Sequence[str], budget: _Budget) -> None:
    """What is to become of a directory with sockets, fifos or devices in it. :raise InvalidArgument: it is needed."""
    named = ", ".join(quote(path) for path in odd[:_NAMED]) + (", …" if odd[_NAMED:] else "")
    text = f"{named} in the volume {quote(volume.source)} cannot be copied, being a socket, a fifo or a device"
    if not volume.optional:
        raise InvalidArgument(
            f"{text}, and this guest can only be given copies", "boot the image with --guest linux --kernel default"
        )
    budget.told.append(f"{text}: the guest has the volume at {volume.target} without")


def _directory(source: str, top: OwnedFd, place: str, budget: _Budget, odd: list[str]) -> Iterator[tuple[str, File]]:
    """What is in a directory: files, links and directories. No link is followed. Into ``odd``: the paths of what is none of these."""
    waiting = [("", top.duplicate())]
    try:
        while waiting:
            below, opened = waiting.pop()
            with opened as directory:
                for name in sorted(os.listdir(directory.fileno())):
                    path = f"{below}/{name}"
                    info = os.stat(name, dir_fd=directory.fileno(), follow_symlinks=False)
                    owner = (info.st_uid, info.st_gid)
                    if stat.S_ISLNK(info.st_mode):
                        budget.take(0)
                        yield (
                            place + path,
                            File(os.fsencode(os.readlink(name, dir_fd=directory.fileno())), 0o777, stat.S_IFLNK, owner),
                        )
                        continue
                    if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
                        odd.append(path)  # a socket, a fifo or a device of the host has no content
                        continue
                    child = OwnedFd(os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=directory.fileno()))
                    if stat.S_ISDIR(info.st_mode):
                        budget.take(0)
                        waiting.append((path, child))
                        yield place + path, File(b"", stat.S_IMODE(info.st_mode), stat.S_IFDIR, owner)
                        continue
                    with child:
                        yield place + path, _content(source + path, child, os.fstat(child.fileno()), budget)
    except OSError as error:
        raise InvalidArgument(f"the volume {quote(source)} cannot be read: {error.strerror}") from None
    finally:
        for _, opened in waiting:
            opened.close()


def _content(path: str, file: OwnedFd, info: os.stat_result, budget: _Budget) -> File:
    with open(file.fileno(), "rb", closefd=False) as reader:
        data = reader.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise InvalidArgument(
            f"{quote(path)} has more than {FILE_LIMIT} bytes, and this guest can only be given a copy of it"
        )
    budget.take(len(data))
    return File(data, stat.S_IMODE(info.st_mode) & 0o777, owner=(info.st_uid, info.st_gid))


def _disk(volume: Volume, budget: _Budget) -> OwnedFd:
    """A directory as a disk in memory."""
    from unikeel.snapshots.ext4 import write_image

    found = list(_copied(volume, "", budget))
    if found[0][1].kind != stat.S_IFDIR:
        raise InvalidArgument(
            f"the volume {quote(volume.source)} is no directory, and this guest can only be given disks, which it mounts at directories"
        )
    identity = zlib.crc32(volume.target.encode(errors="surrogateescape")).to_bytes(16, "big")
    root, content = _tree(found)
    with sealed_bytes("content", content) as source:
        return sealed(
            "copy",
            lambda fd: write_image(fd, root, uuid=identity, free_bytes=0, open_data=lambda _: source.fileno()),
        )


def _tree(found: Sequence[tuple[str, File]]) -> tuple[Node, bytes]:
    """The nodes of a file system, a directory before what is in it, and the content of all files, one after the other."""
    from unikeel.snapshots.ext4 import Data, Node

    content = bytearray()
    nodes: dict[str, Node] = {}
    for path, file in found:
        node = Node(file.kind | file.mode, uid=file.owner[0], gid=file.owner[1])
        if file.kind == stat.S_IFDIR:
            node.children = {}
        elif file.kind == stat.S_IFLNK:
            node.target = file.data
        elif file.data:
            node.data = Data(0, len(content), len(file.data))
            content += file.data
        nodes[path] = node
        above, _, name = path.rpartition("/")
        if path:
            children = nodes[above].children
            assert children is not None
            children[os.fsencode(name)] = node
    return nodes[""], bytes(content)
