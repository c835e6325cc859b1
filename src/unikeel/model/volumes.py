"""Volumes: what of the host a container is given beyond its image. How each reaches its guest: :mod:`.ways`."""

from __future__ import annotations

from typing import Final

from unikeel.errors import InvalidArgument
from unikeel.values import NamedTuple

_FORM: Final = "write HOST:GUEST or HOST:GUEST:ro, both absolute paths"


class Volume(NamedTuple):
    """A directory or file of the host (``source``) at ``target`` in the guest; both absolute paths."""

    source: str
    target: str
    read_only: bool = False
    #: Its guest can do without it; that it does is told.
    optional: bool = False


def parse(text: str) -> Volume:
    """A volume as ``-v`` names it. :raises InvalidArgument: it is none."""
    from unikeel.model.names import quote

    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or mode not in ("", "ro", "rw"):
        raise InvalidArgument(f"{quote(text)} is not a volume", _FORM)
    if not source.startswith("/"):
        raise InvalidArgument(f"{quote(text)} is not a volume: {quote(source)} is not an absolute path", _FORM)
    return checked(Volume(source, target, mode == "ro"))


def checked(volume: Volume) -> Volume:
    """The volume with a clean target. :raises InvalidArgument: it is not one that can be."""
    import posixpath

    from unikeel.model.names import quote

    target = volume.target
    if not target.startswith("/") or "\0" in target or ".." in target.split("/"):
        raise InvalidArgument(f"{quote(target)} is not where a volume can be in a guest", _FORM)
    clean = posixpath.normpath("/" + target.lstrip("/"))
    if clean == "/":
        raise InvalidArgument("a volume cannot be the guest's root", _FORM)
    return volume._replace(target=clean)
