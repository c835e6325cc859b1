"""Digests as OCI writes them (``sha256:`` and 64 lower-case hex digits; OCI image specification, descriptor.md)."""

from __future__ import annotations

from collections.abc import Sequence

from unikeel.errors import BadContent
from unikeel.lean import Final, sha256

PREFIX: Final = "sha256:"
HEX_LENGTH: Final = 64
_HEX: Final = frozenset("0123456789abcdef")


def is_hex(text: str) -> bool:
    """Whether a text is made of lower-case hex digits only (the empty text is)."""
    return _HEX.issuperset(text)


def hex_of(digest: str, where: str) -> str:
    """The hex digits of a digest.

    :param where: what names the digest, for the error.
    :raise BadContent: it is malformed, or of another algorithm than sha256.
    """
    algorithm, colon, digits = digest.partition(":")
    if colon and algorithm != "sha256" and algorithm.isidentifier():
        raise BadContent(
            f"{where}: digest algorithm {algorithm} of {digest[:80]!r} is not supported",
            "rebuild it with sha256 digests",
        )
    if not colon or len(digits) != HEX_LENGTH or not is_hex(digits):
        raise BadContent(f"{where}: {digest[:80]!r} is not a digest")
    return digits


def of(data: bytes) -> str:
    """The digest of some bytes."""
    return PREFIX + sha256(data).hexdigest()


def chain_id(diff_ids: Sequence[str]) -> str:
    """The identity of a stack of layers (OCI image specification, config.md, "Layer ChainID").

    :param diff_ids: lowest first.
    :raises BadContent: there is none.
    """
    if not diff_ids:
        raise BadContent("an image without layers has no chain ID")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = PREFIX + sha256(f"{chain} {diff_id}".encode()).hexdigest()
    return chain
