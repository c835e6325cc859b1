"""``unikeel image ls``: the images of the store."""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Option, Parsed
from unikeel.cli.output import json, line, short, size, table, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.images.manifests import Image

COMMAND = Command(
    "image ls",
    "list the images of the store",
    options=(Option(("-q", "--quiet"), "print digests only"), JSON),
    examples=(("unikeel image ls --json", "for a program"),),
    details="JSON keys: name (empty if it has none), digest, size in bytes, architecture, created, layers (their number).",
)


def run(parsed: Parsed, session: Session) -> int:
    """List them."""
    with session.engine() as engine:
        images = engine.images()
    if parsed.flag("json"):
        json([described(image) for image in images])
    elif parsed.flag("quiet"):
        for digest in dict.fromkeys(image.digest for image in images):
            line(digest)
    else:
        rows = [
            (image.name or "-", short(image.digest), size(image.size), image.architecture, image.created or "-")
            for image in images
        ]
        write(table(("NAME", "DIGEST", "SIZE", "ARCH", "CREATED"), rows, right=frozenset({2})))
    return 0


def described(image: Image) -> dict[str, object]:
    """One image, as JSON."""
    return {
        "name": image.name,
        "digest": image.digest,
        "size": image.size,
        "architecture": image.architecture,
        "created": image.created,
        "layers": len(image.layers),
    }
