"""What a snapshotter's mounts mean, as far as boot files go: pure functions from its answer to steps that can be taken read-only.

containerd's special types (from 2.2 on) are prefixes: ``format/`` has templates in source and options filled in with where the mounts before
lie, ``mkdir/`` makes directories for writing, ``mkfs/`` a file system. Only the first is needed to read (containerd.md 3.6).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unikeel.boot.contract import HostMount
from unikeel.errors import Unavailable
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: File systems that our own readers read.
READABLE: Final = frozenset({"ext2", "ext3", "ext4", "erofs"})
#: What says how and where to mount, not what: decided here, or for us. What starts with one of these is left out.
_OURS: Final = (
    "ro",
    "rw",
    "loop",
    "bind",
    "rbind",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "relatime",
    "nouuid",
    "noload",
)
_OURS_TOO: Final = ("norecovery", "discard", "nodiscard", "x-containerd.", "uidmap=", "gidmap=")
#: Options of overlayfs that change what is seen; the others are about writing.
_UNION: Final = ("userxattr", "metacopy=", "redirect_dir=")
#: A plain ``ro`` would replay a journal, that is, write.
_NO_JOURNAL: Final = {
    "ext2": ("noload",),
    "ext3": ("noload",),
    "ext4": ("noload",),
    "xfs": ("norecovery", "nouuid"),
    "erofs": (),
}
#: The driver of each: ext4's serves all three.
_DRIVERS: Final = {"ext2": "ext4", "ext3": "ext4"}
_TEMPLATE: Final = re.compile(r"\{\{\s*(source|target|mount|overlay)((?:\s+\d{1,6}){1,2})\s*\}\}")


class Place(NamedTuple):
    """A directory: of the host, or (``mount`` >= 0) beneath the root of an earlier step."""

    path: str
    mount: int = -1


class Step(NamedTuple):
    """One mount: an image (``source`` is a file or device), or the union of directories, the uppermost first; one: a bind mount.

    :ivar driver: ``overlay`` for a union. :ivar options: parameters, None for flags.
    """

    driver: str
    source: str = ""
    layers: tuple[Place, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    fstype: str = ""


def image_of(mounts: Sequence[HostMount]) -> HostMount | None:
    """The one image that the mounts consist of, if our own readers can read it."""
    if len(mounts) != 1 or mounts[0].type not in READABLE:
        return None
    split = any(option.startswith(("device=", "fsoffset=")) for option in mounts[0].options)
    return None if split or not mounts[0].source.startswith("/") else mounts[0]


def plan(mounts: Sequence[HostMount]) -> tuple[Step, ...]:
    """The steps by which the mounts are made read-only, the last of which is the root.

    :raise Unavailable: they cannot be made so; the reason is a sentence.
    """
    if not mounts:
        raise Unavailable("the snapshotter answered no mount")
    return tuple(_step(mounts, number, last=number == len(mounts) - 1) for number in range(len(mounts)))


def _step(mounts: Sequence[HostMount], number: int, *, last: bool) -> Step:
    mount = mounts[number]
    *special, fstype = mount.type.split("/")
    templates = "format" in special
    if not set(special) <= {"format", "mkdir"}:
        raise Unavailable(f"a mount of the type {mount.type} cannot be made read-only")
    if fstype == "overlay":
        _check_alone(mounts, templates)
        return _union(mounts, number, templates=templates)
    if fstype in ("bind", "rbind", "none", ""):
        if not {"bind", "rbind"} & set(mount.options) and fstype not in ("bind", "rbind"):
            raise Unavailable(f"the snapshotter answered a mount of the type {mount.type!r}, which is unknown here")
        _check_alone(mounts, templates)
        places = _places(mount.source, mounts, number) if templates else (Place(mount.source),)
        return Step("overlay", layers=_checked(places[:1] if len(places) == 1 else (), mount.source))
    if last and number:
        raise Unavailable(
            f"{len(mounts)} mounts on one another, the last of the type {mount.type}, cannot be made here"
        )
    return _image(mount, fstype)


def _check_alone(mounts: Sequence[HostMount], templates: bool) -> None:  # noqa: FBT001 - two callers, above
    if len(mounts) > 1 and not templates:
        raise Unavailable(f"{len(mounts)} mounts on one another cannot be made here")


def _image(mount: HostMount, fstype: str) -> Step:
    if not mount.source.startswith("/") or "\0" in mount.source:
        raise Unavailable(f"the snapshotter answered {mount.source!r} where a file or device should be")
    options: list[tuple[str, str | None]] = [("ro", None)]
    options += [(flag, None) for flag in _NO_JOURNAL.get(fstype, ())]
    passed = [option for option in mount.options if _is_the_file_system_s(option)]
    if fstype in _NO_JOURNAL:  # the rest tunes what is not done here
        passed = [option for option in passed if option.startswith(("device=", "fsoffset="))]
    options += [_parameter(option) for option in passed]
    return Step(_DRIVERS.get(fstype, fstype), mount.source, (), tuple(options), fstype)


def _is_the_file_system_s(option: str) -> bool:
    return option not in _OURS and not option.lower().startswith(_OURS_TOO)


def _parameter(option: str) -> tuple[str, str | None]:
    key, equals, value = option.partition("=")
    return key, value if equals else None


def _union(mounts: Sequence[HostMount], number: int, *, templates: bool) -> Step:
    lower: tuple[Place, ...] = ()
    upper: tuple[Place, ...] = ()
    options: list[tuple[str, str | None]] = []
    for option in mounts[number].options:
        key, _, value = option.partition("=")
        if key == "lowerdir":
            lower = tuple(place for name in split_layers(value) for place in _filled(name, mounts, number, templates))
        elif key == "upperdir":
            upper = _filled(value, mounts, number, templates)
        elif key in ("datadir+", "lowerdir+"):
            raise Unavailable(f"overlayfs with {key} is not read here")
        elif option.startswith(_UNION):
            options.append(_parameter(option))
    return Step("overlay", layers=_checked(upper + lower, "the overlay"), options=tuple(options))


def _checked(places: tuple[Place, ...], what: str) -> tuple[Place, ...]:
    if not places or any(
        (place.mount < 0 and not place.path.startswith("/")) or "\0" in place.path for place in places
    ):
        raise Unavailable(f"the snapshotter's answer for {what} names no directory of this host")
    return places


def _filled(text: str, mounts: Sequence[HostMount], number: int, templates: bool) -> tuple[Place, ...]:  # noqa: FBT001
    return _places(text, mounts, number) if templates else (Place(text),)


def split_layers(value: str) -> list[str]:
    r"""The directories of ``lowerdir=``: between colons, where ``\:`` is a colon and ``\\`` a backslash.

    :raise Unavailable: it has layers of data only (``::``).
    """
    parts = [""]
    escaped = False
    for character in value:
        if escaped:
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            parts.append("")
        else:
            parts[-1] += character
    if "" in parts:
        raise Unavailable(f"overlayfs with an empty name among its layers is not read here: {value[:200]!r}")
    return parts


def _places(text: str, mounts: Sequence[HostMount], number: int) -> tuple[Place, ...]:
    """What a template stands for: places beneath the mounts before this one, or a path of the host."""
    found = _TEMPLATE.match(text)
    if found is None:
        if "{{" in text:
            raise Unavailable(f"the template {text[:200]!r} is unknown here")
        return (Place(text),)
    word, arguments, rest = found[1], [int(argument) for argument in found[2].split()], text[found.end() :]
    wanted = 2 if word == "overlay" else 1
    if "{{" in rest or len(arguments) != wanted or max(arguments) >= number or (word == "overlay" and rest):
        raise Unavailable(f"the template {text[:200]!r} cannot be filled in with {number} mounts")
    if word == "source":
        return (Place(mounts[arguments[0]].source + rest),)
    if word == "target":
        raise Unavailable(f"the template {text[:200]!r} asks where a mount lies, which has no place here")
    first, last = arguments[0], arguments[-1]
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return tuple(Place(rest, one) for one in numbers)
