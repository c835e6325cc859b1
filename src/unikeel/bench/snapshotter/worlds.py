"""Labs with snapshotters in them, and blocks of samples run there. The one module that knows the lab, which is not part of the package."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from unikeel.bench import following
from unikeel.bench.lines import Found
from unikeel.bench.rows import Board, Json
from unikeel.bench.snapshotter import layered, ours
from unikeel.bench.snapshotter.inside.session import Contender
from unikeel.bench.snapshotter.plan import CONTENT_MIB, NATIVE, SIZE_MIB, Block, World
from unikeel.errors import Unavailable
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from lab.native import Native
    from lab.place import Place

_PYTHON: Final = "/opt/unikeel/bin/python"
_INSIDE: Final = "unikeel.bench.snapshotter.inside"
#: Gigabytes of the XFS that containerd's and our files lie on, where that is what is compared.
_XFS_GIB: Final = 24
_XFS: Final = """
truncate -s "$1G" /var/tmp/xfs
mkfs.xfs -q -m reflink=1 /var/tmp/xfs
mkdir /run/xfs
mount -o loop /var/tmp/xfs /run/xfs
for name in containerd unikeel; do mkdir /run/xfs/$name; mount --bind /run/xfs/$name /var/lib/$name; done
"""
#: A btrfs in a file, which this host's program makes: the lab's roots have none.
_BTRFS_FILE: Final = "/var/tmp/btrfs"  # noqa: S108 - of the lab, which has one user
_BTRFS_GIB: Final = 8
_BTRFS: Final = """
mkdir -p "$2"
mount -o loop "$1" "$2"
"""
_MINUTE: Final = 60.0


class Stage(NamedTuple):
    """A world that runs, with the layered image unpacked into every snapshotter in it."""

    world: World
    place: Place
    contenders: Mapping[str, Contender]

    def run(self, block: Block, board: Board, patience: float) -> Found:
        """See :meth:`unikeel.bench.running.Stage.run`."""
        request: dict[str, Json] = {
            "group": block.group,
            "contenders": [list(self.contenders[name]) for name in block.contenders],
            "image": layered.NAME,
            "first": block.first,
            "rounds": block.rounds,
            "many": block.many,
            "few": block.few,
            "samples": block.samples,
            "patience": patience,
        }
        argv = [_PYTHON, "-m", _INSIDE, json.dumps(request)]
        return following.taken(self.place, argv, board, f"{block.group} of {self.world.snapshotter}", block.timeout)


@contextmanager
def opened(blocks: Sequence[Block]) -> Iterator[Stage]:
    """A lab of the world of these blocks; everything is gone afterwards.

    :raise Unavailable: the lab is not there, does not start, or left something behind.
    """
    world = blocks[0].world
    names = list(dict.fromkeys(name for block in blocks for name in block.contenders))
    try:
        from lab.errors import LabError
    except ImportError:
        raise Unavailable("the lab is not on Python's path", "run this in the project's directory") from None
    try:
        with _place(world, names) as place, tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            archive, image = f"{scratch}/layered.tar", layered.made(CONTENT_MIB)
            with open(archive, "wb") as file:
                file.write(image.archive)
            contenders = {name: _contender(world, name, image.chain_id) for name in names}
            for contender in contenders.values():
                place.import_image(archive, snapshotter=contender.snapshotter, timeout=5 * _MINUTE)
            yield Stage(world, place, contenders)
    except LabError as error:
        raise Unavailable(str(error)) from None


def _contender(world: World, name: str, parent: str) -> Contender:
    """A contender as the process inside is told."""
    if name in world.ours:
        return Contender(
            name, name, ours.socket(name), ours.pool(name), parent, ours.KINDS[name].spares, ours.records(name)
        )
    if name in world.others:
        return Contender(name, name, "", "", parent)
    return Contender(name, world.builtin, "", "pool" if world.builtin == "devmapper" else "", parent)


@contextmanager
def _place(world: World, names: Sequence[str]) -> Iterator[Place]:
    """A lab with containerd and those of our snapshotters that are measured."""
    mine = [name for name in names if name in world.ours]
    extra = "".join(map(ours.plugin, mine))
    with _lab(world) as place:
        for name in mine:
            ours.start(place, name)
        place.start_containerd(world.builtin, image_mib=SIZE_MIB, cri=False, extra=extra)
        yield place


@contextmanager
def _lab(world: World) -> Iterator[Place]:
    if world.where == NATIVE:
        from lab.native import Native

        with Native(world.root, containerd=False) as native:
            if world.file_system == "xfs":
                native.run(["sh", "-ec", _XFS, "sh", str(_XFS_GIB)], timeout=_MINUTE)
            if "btrfs" in world.contenders:
                _mount_btrfs(native)
            yield native
    else:
        from lab.machine import Machine

        with Machine() as machine:
            yield machine


def _mount_btrfs(native: Native) -> None:
    """Have a btrfs where containerd's snapshotter wants it. :raise Unavailable: this host cannot make one."""
    from lab.configuration import BTRFS

    outside = native.path(_BTRFS_FILE)
    try:
        with open(outside, "wb") as file:
            file.truncate(_BTRFS_GIB << 30)
        subprocess.run(["mkfs.btrfs", "-q", outside], check=True, capture_output=True, timeout=_MINUTE)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"mkfs.btrfs fails: {error}", "install btrfs-progs") from None
    native.run(["sh", "-ec", _BTRFS, "sh", _BTRFS_FILE, BTRFS], timeout=_MINUTE)
