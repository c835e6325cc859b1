"""Images of a size: ``boot-32M`` has 32 MB of boot files, ``image-500M`` 500 MB of others; the rest is as in the sample ``hello``.

Their bytes are the same every time and do not compress; layers are plain tar files, since gzip would be what is measured.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import tarfile
import tempfile
from typing import TYPE_CHECKING, Final

from unikeel.bench import contents
from unikeel.errors import InvalidArgument, NotFound
from unikeel.images.description import Overrides
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.engine.engine import Engine

_MB: Final = 1_000_000
_NAME: Final = re.compile(r"(boot|image)-([1-9][0-9]{0,4})M")
_DESCRIPTION: Final = """\
type = "generic"
monitor = "qemu"
kernel = "/boot/hello"
initrd = "/boot/initrd"
cmd = ["exit=0"]
[annotations]
"org.unikeel.rootfs" = "block"
"""


class Sized(NamedTuple):
    """An image by its name: megabytes of boot files, and of the image's other files."""

    boot: int
    ballast: int


def boot(megabytes: int) -> str:
    """The name of an image with so many megabytes of boot files."""
    return f"boot-{megabytes}M"


def whole(megabytes: int) -> str:
    """The name of an image with so many megabytes of other files, and one of boot files."""
    return f"image-{megabytes}M"


def sized(name: str) -> Sized | None:
    """What a name stands for; None: it is no image of a size."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    size = int(found[2])
    return Sized(size, 0) if found[1] == "boot" else Sized(1, size)


def make(engine: Engine, name: str, hello: str) -> dict[str, str]:
    """Build an image of a size into the engine's store and unpack it; the digests of its boot files.

    :param hello: the archive of the sample hello, whose kernel it gets. :raise NotFound: that is missing.
    """
    size = sized(name)
    if size is None:
        raise InvalidArgument(f"{name} is no image of a size", "boot-32M and image-500M are")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.path.dirname(engine.root)) as directory:
        os.makedirs(os.path.join(directory, "tree", "boot"))
        expected = {"kernel": _kernel(hello, os.path.join(directory, "tree", "boot", "hello"))}
        expected["initrd"] = _write(os.path.join(directory, "tree", "boot", "initrd"), size.boot * _MB, name)
        if size.ballast:
            _write(os.path.join(directory, "tree", "ballast"), size.ballast * _MB, "ballast")
        with open(os.path.join(directory, "image.toml"), "w", encoding="ascii") as file:
            file.write(f'name = "{name}"\n{_DESCRIPTION}')
        archive = os.path.join(directory, "image.tar")
        engine.build(directory, Overrides(compression="none"), output=archive, store=False)
        engine.load(archive, name)
    return expected


def _kernel(hello: str, path: str) -> str:
    """Copy the kernel out of hello's archive; its digest."""
    if not os.path.exists(hello):
        raise NotFound(f"the sample image hello is missing ({hello})", "run `make samples`")
    wanted = contents.boot_files(hello, {"kernel": "/boot/hello"})["kernel"]
    with tarfile.open(hello) as outer:
        for member in outer:
            file = outer.extractfile(member)
            if file is None or not member.name.startswith("blobs/"):
                continue
            data = _inner(file.read())
            if data is not None and hashlib.sha256(data).hexdigest() == wanted:
                with open(path, "wb") as target:
                    target.write(data)
                return wanted
    raise NotFound(f"{hello} has no kernel", "run `make samples`")


def _inner(blob: bytes) -> bytes | None:
    import io

    try:
        with tarfile.open(fileobj=io.BytesIO(blob)) as layer:
            file = layer.extractfile("boot/hello")
            return file.read() if file is not None else None
    except (tarfile.TarError, KeyError):
        return None


def _write(path: str, size: int, seed: str) -> str:
    """A file of bytes that do not compress; its digest."""
    numbers = random.Random(seed)  # noqa: S311 - the same bytes every time is what is wanted
    digest = hashlib.sha256()
    piece = numbers.randbytes(_MB)
    with open(path, "wb") as file:
        for count in range(size // _MB):
            some = count.to_bytes(8, "little") + piece[8:]
            digest.update(some)
            file.write(some)
    return digest.hexdigest()
