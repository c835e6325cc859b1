"""``unikeel image pull``: fetch an image by skopeo."""

from __future__ import annotations

from unikeel.cli import image_load, progress
from unikeel.cli.options import Argument, Command, Parsed
from unikeel.cli.output import line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "image pull",
    "fetch an image from a registry, or from wherever skopeo can",
    options=(image_load.NAME, image_load.NO_UNPACK),
    arguments=(Argument("REFERENCE", "docker://…, oci:…, docker-archive:…, or a bare name, which means a registry"),),
    examples=(
        ("unikeel image pull registry.example.org/web/nginx:1.24", "from a registry"),
        ("unikeel image pull docker-daemon:web:latest --name web", "from the Docker of this machine"),
    ),
)


def run(parsed: Parsed, session: Session) -> int:
    """Pull, and print the name."""
    unpack = not parsed.flag("no-unpack")
    with session.engine() as engine, progress.shown() as shown:
        image = engine.pull(parsed.operands[0], parsed.maybe("name"), unpack=unpack, progress=shown)
        line(image_load.named(image))
    return 0
