"""Names of images and how a person refers to one.

A name is stored in its familiar form: ``docker.io/library/nginx`` is ``nginx:latest``. The characters are those of
``org.opencontainers.image.ref.name`` (OCI image specification, annotations.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unikeel.errors import InvalidArgument, NotFound
from unikeel.images import digests
from unikeel.lean import Final

MAX_NAME: Final = 255
MIN_PREFIX: Final = 4
_HUBS: Final = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/")
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_CHARACTERS: Final = _LETTERS | frozenset("-._:@/+")


def is_name(text: str) -> bool:
    """Whether a text can name an image at all."""
    return (
        0 < len(text) <= MAX_NAME
        and _CHARACTERS.issuperset(text)
        and text[0] in _LETTERS
        and text[-1] in _LETTERS
        and not text.startswith(digests.PREFIX)
    )


def canonical(name: str) -> str:
    """The form in which a name is stored: without the default registry, with a tag.

    :raise InvalidArgument: no image can have this name.
    """
    short = name
    while hub := next((hub for hub in _HUBS if short.startswith(hub)), ""):
        short = short.removeprefix(hub)
    if "@" not in short and ":" not in short.rpartition("/")[2]:
        short += ":latest"
    if not is_name(name) or not is_name(short):
        raise InvalidArgument(
            f"{name[:300]!r} cannot name an image", "letters, digits and -._:@/+, such as web/nginx:1.24"
        )
    return short


def _canonical_or_same(reference: str) -> str:
    try:
        return canonical(reference)
    except InvalidArgument:
        return reference


def resolve(reference: str, names: Mapping[str, str], known: Iterable[str]) -> tuple[str, str]:
    """What a reference means among the images that there are.

    :param names: digest by name. :param known: all digests, named or not.
    :return: name (empty if referred to by digest) and digest.
    :raise NotFound: nothing has that name, the hint says what comes near. :raise InvalidArgument: the prefix of a digest
        fits several images, or the reference is no reference at all.
    """
    name = _canonical_or_same(reference)
    if name in names:
        return name, names[name]
    wanted = reference.rpartition("@")[2].removeprefix(digests.PREFIX)
    explicit = wanted != reference
    if len(wanted) >= MIN_PREFIX and digests.is_hex(wanted):
        found = sorted({digest for digest in known if digest.startswith(digests.PREFIX + wanted)})
        if len(found) > 1:
            raise InvalidArgument(f"the digest {reference} fits {len(found)} images", "give more of its digits")
        if found:
            return "", found[0]
    if not explicit and not is_name(reference):
        raise InvalidArgument(f"{reference[:300]!r} is neither a name nor a digest of an image")
    raise NotFound(f"there is no image {reference}", _nearest(reference, names))


def _nearest(reference: str, names: Iterable[str]) -> str:
    import difflib

    short = {name.removesuffix(":latest"): name for name in names}
    found = difflib.get_close_matches(reference.removesuffix(":latest"), list(short), n=3, cutoff=0.5)
    if found:
        return "did you mean " + " or ".join(short[name] for name in found) + "?"
    return "see `unikeel image ls`; get one by `unikeel image load` or `unikeel image pull`"
