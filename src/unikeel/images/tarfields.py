"""The fields of a tar header and of PAX records: numbers, times, owners."""

from __future__ import annotations

from collections.abc import Iterator

_MAX_NUMBER = (1 << 63) - 1
_MAX_ID = 0xFFFFFFFE
_NANO_DIGITS = 9


class Malformed(Exception):
    """A header says something that cannot be; the message is half a sentence."""


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The "length key=value" lines of a PAX header. An empty value takes an earlier one back."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if space < 0 or end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise Malformed("a malformed PAX record")
        yield key, value
        position = end


def text(field: bytes) -> bytes:
    """A field's text, which ends at the first zero byte."""
    return field.split(b"\0", 1)[0]


def octal(field: bytes) -> int:
    """A field's octal digits; an empty one is 0."""
    digits = text(field.strip(b" \0"))
    if not digits:
        return 0
    # int() would take signs, underscores and blanks, too.
    if digits.strip(b"01234567"):
        raise Malformed(f"{digits[:24]!r} where a number should be")
    return int(digits, 8)


def number(field: bytes) -> int:
    """A numeric field: octal digits, or base 256 (GNU) if its highest bit is set."""
    if not field[0] & 0x80:
        return octal(field)
    value = int.from_bytes(field, "big")
    # Bit 7 marks the form and bit 6 is the sign.
    bits = 8 * len(field) - 1
    value &= (1 << bits) - 1
    if value >> (bits - 1):
        value -= 1 << bits
    if not -_MAX_NUMBER <= value <= _MAX_NUMBER:
        raise Malformed("a number that does not fit into 64 bits")
    return value


def decimal(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    """A PAX record that is a number, if it is there."""
    digits = pax.get(key)
    return natural(digits, key.decode()) if digits else default


def natural(digits: bytes, what: str) -> int:
    """Decimal digits, as PAX has them."""
    if not digits.isdigit() or len(digits) > 19 or int(digits) > _MAX_NUMBER:
        raise Malformed(f"{what} is {digits[:24]!r}")
    return int(digits)


def owner(pax: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    """A user or group: the PAX record, else the field."""
    found = decimal(pax, key, -1)
    if found < 0:
        found = number(field)
    if not 0 <= found <= _MAX_ID:
        raise Malformed(f"{key.decode()} is {found}")
    return found


def nanoseconds(written: bytes) -> int:
    """A PAX time: decimal seconds, perhaps negative, perhaps with a fraction."""
    negative = written.startswith(b"-")
    whole, _, fraction = written.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 19 or (fraction and not fraction.isdigit()):
        raise Malformed(f"mtime is {written[:24]!r}")
    value = int(whole) * 10**9 + int(fraction[:_NANO_DIGITS].ljust(_NANO_DIGITS, b"0"))
    return -value if negative else value


def shown(name: bytes) -> str:
    """A name as a message has it."""
    return repr(name[-300:].decode("utf-8", "backslashreplace"))
