"""``unikeel image load``: take images from a file or a directory."""

from __future__ import annotations

from unikeel.cli import progress
from unikeel.cli.options import FILES, Argument, Command, Option, Parsed
from unikeel.cli.output import line, short
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.images.manifests import Image

NAME = Option(("--name",), "the name to give, instead of the source's", "NAME")
NO_UNPACK = Option(("--no-unpack",), "leave unpacking to the first container")

COMMAND = Command(
    "image load",
    "take the images of an OCI layout or an archive into the store",
    options=(NAME, NO_UNPACK),
    arguments=(Argument("SOURCE", "OCI layout directory, OCI archive or Docker archive", complete=FILES),),
    examples=(("unikeel image load build/samples/hello.tar", "one archive"),),
)


def run(parsed: Parsed, session: Session) -> int:
    """Load, and print the names."""
    unpack = not parsed.flag("no-unpack")
    with session.engine() as engine, progress.shown() as shown:
        for image in engine.load(parsed.operands[0], parsed.maybe("name"), unpack=unpack, progress=shown):
            line(named(image))
    return 0


def named(image: Image) -> str:
    """An image's name, or its short digest."""
    return image.name or short(image.digest)
