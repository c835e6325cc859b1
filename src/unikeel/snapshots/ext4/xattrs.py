"""Extended attributes: in the inode's spare room first, then in one block of their own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from unikeel.errors import BadContent
from unikeel.snapshots.ext4.layout import BLOCK
from unikeel.values import NamedTuple

#: Room behind the fixed part of an inode: 256 bytes less 128 less an ``extra_isize`` of 32.
INLINE_ROOM = 96
_MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
_HEADER = struct.Struct("<IIIII12x")
#: Name prefixes that ext4 stores as numbers; the two ACL names are stored whole.
_EXACT = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_PREFIXES = {b"user.": 1, b"trusted.": 4, b"security.": 6}
_ACL_TAGS_PLAIN = (0x01, 0x04, 0x10, 0x20)
_ACL_TAGS_NAMED = (0x02, 0x08)


class Encoded(NamedTuple):
    """The bytes for the inode's spare room and, where that did not do, for a block; either may be empty."""

    inline: bytes
    block: bytes


class _Attribute(NamedTuple):
    namespace: int
    name: bytes
    value: bytes

    @property
    def cost(self) -> int:
        return _padded(_ENTRY.size + len(self.name)) + _padded(len(self.value))

    @property
    def digest(self) -> int:
        """The hash of ``fs/ext4/xattr.c`` over name and value."""
        result = 0
        for byte in self.name:
            result = ((result << 5) ^ (result >> 27) ^ byte) & 0xFFFFFFFF
        value = self.value.ljust(_padded(len(self.value)), b"\0")
        for (word,) in struct.iter_unpack("<I", value):
            result = ((result << 16) ^ (result >> 16) ^ word) & 0xFFFFFFFF
        return result


def known(name: bytes) -> bool:
    """Whether Linux has a handler for such a name on ext4; others cannot be set by anybody and are left out."""
    return name in _EXACT or name.startswith(tuple(_PREFIXES))


def encode(attributes: Mapping[bytes, bytes] | None) -> Encoded:
    """Lays the attributes out.

    :raises BadContent: they do not fit, a name cannot be stored, or an access control list is malformed. The message
        names the attribute, not the file: the caller does.
    """
    if not attributes:
        return Encoded(b"", b"")
    wanted = sorted(
        (_attribute(name, value) for name, value in attributes.items()),
        key=lambda a: (a.namespace, len(a.name), a.name),
    )
    inline, block = [], []
    room = INLINE_ROOM - 8
    for attribute in wanted:
        if attribute.cost <= room:
            inline.append(attribute)
            room -= attribute.cost
        else:
            block.append(attribute)
    if _HEADER.size + 4 + sum(attribute.cost for attribute in block) > BLOCK:
        raise BadContent("the extended attributes take more than the 4 KiB that ext4 has for them")
    return Encoded(_inline(inline), _block(block))


def _attribute(name: bytes, value: bytes) -> _Attribute:
    index, rest = _split(name)
    if index in _EXACT.values():
        return _Attribute(index, b"", _acl(name, value))
    if not rest or len(rest) > 255 or b"\0" in rest:
        raise BadContent(f"the extended attribute name {name[:80]!r} cannot be stored")
    return _Attribute(index, rest, value)


def _split(name: bytes) -> tuple[int, bytes]:
    if name in _EXACT:
        return _EXACT[name], b""
    for prefix, index in _PREFIXES.items():
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    raise BadContent(f"the extended attribute {name[:80]!r} is of no namespace that ext4 has")


def _acl(name: bytes, value: bytes) -> bytes:
    """From the form that system calls use (version 2, eight bytes an entry) to ext4's (version 1, four or eight)."""
    if len(value) % 8 != 4 or struct.unpack_from("<I", value)[0] != 2:
        raise BadContent(f"the access control list {name.decode()} is malformed")
    result, tags = [struct.pack("<I", 1)], []
    for tag, permission, owner in struct.iter_unpack("<HHI", value[4:]):
        if permission > 7 or tag not in _ACL_TAGS_PLAIN + _ACL_TAGS_NAMED:
            raise BadContent(f"the access control list {name.decode()} is malformed")
        tags.append(tag)
        named = tag in _ACL_TAGS_NAMED
        result.append(struct.pack("<HHI", tag, permission, owner) if named else struct.pack("<HH", tag, permission))
    plain = [tag for tag in tags if tag in _ACL_TAGS_PLAIN]
    required = {0x01, 0x04, 0x20} | ({0x10} if len(plain) < len(tags) else set())
    if tags != sorted(tags) or len(plain) != len(set(plain)) or not required <= set(plain):
        raise BadContent(f"the access control list {name.decode()} is malformed")
    return b"".join(result)


def _padded(size: int) -> int:
    return (size + 3) & ~3


def _inline(attributes: list[_Attribute]) -> bytes:
    if not attributes:
        return b""
    # Offsets in an inode count from behind the four magic bytes.
    return struct.pack("<I", _MAGIC) + _area(attributes, INLINE_ROOM - 4, 0)


def _block(attributes: list[_Attribute]) -> bytes:
    if not attributes:
        return b""
    total = 0
    for attribute in attributes:
        if not attribute.digest:
            total = 0
            break
        total = ((total << 16) ^ (total >> 16) ^ attribute.digest) & 0xFFFFFFFF
    return _HEADER.pack(_MAGIC, 1, 1, total, 0) + _area(attributes, BLOCK - _HEADER.size, _HEADER.size)


def _area(attributes: Iterable[_Attribute], size: int, base: int) -> bytes:
    """Entries from the front, values from the back; ``base`` is what offsets of values count from, before the area."""
    area = bytearray(size)
    front, back = 0, size
    for attribute in attributes:
        offset = 0
        if attribute.value:
            back -= _padded(len(attribute.value))
            area[back : back + len(attribute.value)] = attribute.value
            offset = base + back
        entry = (
            _ENTRY.pack(len(attribute.name), attribute.namespace, offset, 0, len(attribute.value), attribute.digest)
            + attribute.name
        )
        area[front : front + len(entry)] = entry
        front += _padded(len(entry))
    return bytes(area)
