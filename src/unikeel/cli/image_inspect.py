"""``unikeel image inspect``: everything that is known of an image."""

from __future__ import annotations

from unikeel.cli.options import IMAGES, JSON, Argument, Command, Parsed
from unikeel.cli.output import json
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.images.manifests import Image

COMMAND = Command(
    "image inspect",
    "print everything that is known of images, as JSON",
    options=(JSON,),
    arguments=(Argument("IMAGE", "name or digest", 1, None, IMAGES),),
    examples=(("unikeel image inspect nginx", "annotations, command, layers"),),
    details="A list with one object for each image. --json changes nothing: it is accepted because every listing has it.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print a list of objects."""
    with session.engine() as engine:
        json([described(engine.image(reference)) for reference in parsed.operands])
    return 0


def described(image: Image) -> dict[str, object]:
    """All of it; the keys are those of :class:`unikeel.images.manifests.Image`."""
    return {
        "name": image.name,
        "digest": image.digest,
        "config_digest": image.config_digest,
        "created": image.created,
        "size": image.size,
        "architecture": image.architecture,
        "os": image.os,
        "annotations": dict(image.annotations),
        "labels": dict(image.labels),
        "entrypoint": list(image.entrypoint),
        "cmd": list(image.cmd),
        "env": list(image.env),
        "workdir": image.workdir,
        "user": image.user,
        "layers": [layer._asdict() for layer in image.layers],
    }
