"""Kinds of configuration values: what each is called, and how a value from TOML is checked and converted."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.lean import Final
from unikeel.model.names import nearest
from unikeel.values import NamedTuple

Value = str | int | float


class Kind(NamedTuple):
    """A kind of value: what it is called, and from TOML's value to ours; raises ValueError with the rule that is broken."""

    name: str
    parse: Callable[[object], Value]


_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SHORT_UNITS: Final = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}


def parse_size(text: str) -> int:
    """Bytes of ``64MiB``, ``2GiB``, ``512m`` or ``1024``. Units are powers of 1024; a single letter is short for them.

    :raises ValueError: anything else.
    """
    digits = text.rstrip("BKMGTikmgtb ")
    unit = text[len(digits) :].strip()
    factor = _UNITS.get(_SHORT_UNITS.get(unit.lower(), unit))
    if factor is None or not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise ValueError("must be a size such as 64MiB or 2GiB")
    return int(digits) * factor


def format_size(size: int) -> str:
    """The shortest exact form that :func:`parse_size` reads back, such as ``64MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _size(value: object, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a size such as 64MiB")
    size = value if isinstance(value, int) else parse_size(value)
    if not least <= size < 1 << 60:
        raise ValueError(f"must be a size of at least {format_size(least)}")
    return size


def _memory(value: object) -> int:
    size = _size(value, 8 << 20)
    if size % (1 << 20):
        raise ValueError("must be a whole number of MiB")
    return size


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86400:
        raise ValueError("must be a number of seconds from 0 to 86400")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be printable text")
    return value


def _path(value: object) -> str:
    text = _text(value)
    if not text.startswith("/") or len(text) > 4096 or ".." in text.split("/"):
        raise ValueError("must be an absolute path without '..'")
    return text if text == "/" else text.rstrip("/")


def _optional_path(value: object) -> str:
    return "" if value == "" else _path(value)


def _paths(value: object) -> str:
    return ":".join(_path(path) for path in _text(value).split(":"))


def _interface(value: object) -> str:
    import ipaddress

    interface = ipaddress.IPv4Interface(_text(value))
    if "/" not in str(value) or not 8 <= interface.network.prefixlen <= 30:
        raise ValueError("must be an IPv4 address with a prefix of 8 to 30 bits, such as 10.0.2.15/24")
    return str(interface)


def _optional_address(value: object) -> str:
    import ipaddress

    return "" if value == "" else str(ipaddress.IPv4Address(_text(value)))


def _host_port(value: object) -> str:
    text = _text(value)
    host, colon, port = text.rpartition(":")
    if text and not (host and colon and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise ValueError("must be an address and a port, such as 127.0.0.1:9101")
    return text


def _name(value: object) -> str:
    text = _text(value)
    plain = text.isascii() and text == text.lower() and text.replace("-", "").isalnum()
    if not plain or not text[0].isalnum() or len(text) > 64:
        raise ValueError("must be a name of lower-case letters, digits and dashes")
    return text


def _names(value: object) -> str:
    names = [_name(word) for word in _text(value).split()]
    if not names or len(set(names)) != len(names) or len(names) > 64:
        raise ValueError("must be one or more different names, separated by spaces")
    return " ".join(names)


def _block_size(value: object) -> int:
    size = _size(value, 16 << 20)
    if size % 4096 or size > 1 << 44:
        raise ValueError("must be a size of whole blocks of 4KiB, from 16MiB to 16TiB")
    return size


def number(least: int, most: int) -> Kind:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return Kind(f"number, {least} to {most}", parse)


def choice(*choices: str) -> Kind:
    def parse(value: object) -> str:
        if value not in choices:
            near = nearest(value, choices) if isinstance(value, str) else ""
            raise ValueError(f"must be one of {', '.join(choices)}" + (f" (did you mean {near}?)" if near else ""))
        return str(value)

    return Kind(" \\| ".join(f"`{choice}`" for choice in choices), parse)


SIZE: Final = Kind("size", _size)
MEMORY: Final = Kind("size, whole MiB", _memory)
BLOCK_SIZE: Final = Kind("size, 16MiB to 16TiB", _block_size)
NAME: Final = Kind("name", _name)
NAMES: Final = Kind("names", _names)
SECONDS: Final = Kind("seconds", _seconds)
PATH: Final = Kind("path", _path)
OPTIONAL_PATH: Final = Kind("path or empty", _optional_path)
PATHS: Final = Kind("paths", _paths)
ADDRESS: Final = Kind("IPv4 address", _optional_address)
INTERFACE: Final = Kind("IPv4 address/prefix", _interface)
HOST_PORT: Final = Kind("address:port or empty", _host_port)
