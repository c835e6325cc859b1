"""Volumes: what of the host a container is given beyond its image. How each reaches its guest: :mod:`.ways`."""

from __future__ import annotations

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.values import NamedTuple

_FORM: Final = "write HOST:GUEST, both absolute paths, with :ro or :disk, or both (:disk,ro), after it"
_MODES: Final = ("ro", "rw", "disk")


class Volume(NamedTuple):
    """A directory, file or disk of the host (``source``) at ``target`` in the guest; both absolute paths."""

    source: str
    target: str
    read_only: bool = False
    #: Its guest can do without it; that it does is told.
    optional: bool = False
    #: The source is a block device, or a file with a disk's content: the guest gets it as a disk of its own and mounts what is in it.
    disk: bool = False
    #: Of a block device that the guest has as a device at ``target``, and does not mount: its number (st_rdev), which alone says which it is. 0: it is none.
    number: int = 0


def parse(text: str) -> Volume:
    """A volume as ``-v`` names it. :raises InvalidArgument: it is none."""
    from unikeel.model.names import quote

    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    modes = mode.split(",") if mode else []
    if not colon or not set(modes) <= set(_MODES) or len(modes) > len(set(modes)) or {"ro", "rw"} <= set(modes):
        raise InvalidArgument(f"{quote(text)} is not a volume", _FORM)
    if not source.startswith("/"):
        raise InvalidArgument(f"{quote(text)} is not a volume: {quote(source)} is not an absolute path", _FORM)
    return checked(Volume(source, target, "ro" in modes, disk="disk" in modes))


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
