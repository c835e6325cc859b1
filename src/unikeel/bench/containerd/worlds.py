"""Labs with a containerd in them, and blocks of samples run there. The one module that knows the lab, which is not part of the package."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from unikeel.bench import contents, following
from unikeel.bench.containerd import stacks
from unikeel.bench.containerd.bases import Bases
from unikeel.bench.containerd.plan import BASE, NATIVE, Block, World
from unikeel.bench.lines import Found
from unikeel.bench.rows import Board, Json
from unikeel.bench.snapshotter import ours
from unikeel.errors import NotFound, Unavailable
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from lab.place import Place

_PYTHON: Final = "/opt/unikeel/bin/python"
_INSIDE: Final = "unikeel.bench.containerd.inside"
_CONFIG: Final = "/etc/unikeel/config.toml"
#: What is kept while nobody uses it stays for the whole run, as it does while a container of the image runs.
_SETTINGS: Final = "[keeper]\nview_idle = 86400\n"
#: Megabytes of an image's file system: what the largest sample needs.
_IMAGE_MIB: Final = 128
_DAEMON_SECONDS: Final = 40.0
#: For as many layers as an image may have.
_IMPORT_SECONDS: Final = 300.0
_BUSYBOX: Final = "busybox"
#: Boot files of the samples, by their annotations; :mod:`unikeel.bench.contents` finds them in the archives.
_BOOT_FILES: Final[Mapping[str, dict[str, str]]] = {
    "hello": {"kernel": "/boot/hello"},
    "bulky": {"kernel": "/boot/hello", "initrd": "/boot/initrd"},
    "nginx": {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd"},
    "layers": {"kernel": "/boot/hello"},
    "initrd": {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd"},
}


class Stage(NamedTuple):
    """A world that runs, with the images unpacked: their names in containerd, and what their boot files are."""

    world: World
    place: Place
    images: Mapping[str, str]
    expected: Mapping[str, dict[str, str]]
    archives: Mapping[str, str]
    bases: Bases

    def run(self, block: Block, board: Board, patience: float) -> Found:
        """Run a block; its samples are on the board when this returns.

        :raise Unavailable: it cannot be run, or did not come to its end; what it had measured until then is on the board.
        """
        self.bases.use(block.siblings if block.group == BASE else 0)
        request: dict[str, Json] = {
            "group": block.group,
            "snapshotter": self.world.snapshotter,
            "block": self.world.block,
            "first": block.first,
            "rounds": block.rounds,
            "siblings": block.siblings,
            "per_round": block.per_round,
            "images": {name: self.images[name] for name in (*block.images, _BUSYBOX)},
            "expected": {name: dict(self.expected[name]) for name in block.images},
            "archives": {name: self.archives[name] for name in block.images},
            "boot_files": {name: dict(_boot_files(name)) for name in block.images},
            "patience": patience,
            "runtimes": list(block.runtimes),
        }
        argv = [_PYTHON, "-m", _INSIDE, json.dumps(request)]
        return following.taken(self.place, argv, board, f"{block.group} of {self.world.snapshotter}", block.timeout)


@contextmanager
def opened(blocks: Sequence[Block], samples: str) -> Iterator[Stage]:
    """A lab of the world of these blocks with the sample images in it; everything is gone afterwards.

    :param samples: what ``make samples`` filled.
    :raise NotFound: a sample is missing. :raise Unavailable: the lab is not there, does not start, or left something behind.
    """
    world, names = blocks[0].world, dict.fromkeys(name for block in blocks for name in block.images)
    try:
        from lab import images as lab_images
        from lab.errors import LabError
    except ImportError:
        raise Unavailable("the lab is not on Python's path", "run this in the project's directory") from None
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch, _place(world) as place:
            archives = {name: _archive(name, samples, scratch) for name in names}
            expected = {name: contents.boot_files(path, _boot_files(name)) for name, path in archives.items()}
            place.put(_CONFIG, _SETTINGS.encode())
            archives[_BUSYBOX] = lab_images.archive(_BUSYBOX)
            inside = {name: place.take(path) for name, path in archives.items()}
            found = {name: place.import_image(path, timeout=_IMPORT_SECONDS) for name, path in archives.items()}
            for name, names_of in found.items():
                if len(names_of) != 1:
                    raise Unavailable(f"importing the image {name} gave {len(names_of)} names")
            # Without a daemon our tasks fail, one by one; the rest can be measured.
            place.run(["unikeel", "daemon", "--detach"], timeout=_DAEMON_SECONDS * place.slowness, check=False)
            named = {name: names_of[0] for name, names_of in found.items()}
            yield Stage(world, place, named, expected, inside, Bases(place, archives.get("hello", "")))
    except LabError as error:
        raise Unavailable(str(error)) from None


def _boot_files(name: str) -> dict[str, str]:
    return dict(stacks.BOOT_FILES if stacks.stack(name) else _BOOT_FILES[name])


def _archive(name: str, samples: str, scratch: str) -> str:
    """An image's archive: of a sample, or made now. :raise NotFound: the sample is missing."""
    stack = stacks.stack(name)
    path = os.path.abspath(os.path.join(scratch if stack else samples, f"{name}.tar"))
    if stack:
        with open(path, "wb") as file:
            file.write(stacks.made(name, stack))
    elif not os.path.exists(path):
        raise NotFound(f"the sample image {name} is missing ({path})", "run `make samples`")
    return path


@contextmanager
def _place(world: World) -> Iterator[Place]:
    if world.where == NATIVE:
        from lab.native import Native

        with Native(world.root, world.snapshotter, image_mib=_IMAGE_MIB, cri=False) as native:
            yield native
    else:
        from lab.machine import Machine

        with Machine() as machine:
            extra = ""
            if world.snapshotter in ours.KINDS:
                ours.start(machine, world.snapshotter)
                extra = ours.plugin(world.snapshotter)
            machine.start_containerd(world.snapshotter, image_mib=_IMAGE_MIB, cri=False, extra=extra)
            yield machine
