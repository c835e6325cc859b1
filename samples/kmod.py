"""Which kernel modules a guest needs, and in which order they are loaded: what depmod(8) and modprobe(8) do on a full system."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable, Mapping
from typing import Final

_XZ: Final = b"\xfd7zXZ\0"
#: ELF64, little endian: where e_shoff, e_shentsize, e_shnum and e_shstrndx are; sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size.
_SECTIONS_AT: Final = struct.Struct("<Q")
_SECTION_COUNTS: Final = struct.Struct("<HHH")
_SECTION: Final = struct.Struct("<IIQQQQ")


class ModuleMissing(Exception):
    """A module that is needed is neither in the package nor in the kernel."""


def unpacked(data: bytes) -> bytes:
    """A module as the kernel takes it from an initrd that has no modprobe: since Debian 13 packages hold them compressed."""
    return lzma.decompress(data) if data.startswith(_XZ) else data


def name_of(path: str) -> str:
    """A module's name from its file's: ``virtio-rng.ko.xz`` is ``virtio_rng``."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def depends(module: bytes) -> tuple[str, ...]:
    """The modules that one needs, as its ``.modinfo`` section says. :raise ValueError: it is not an ELF file with that section."""
    for entry in _section(module, b".modinfo").split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key == b"depends":
            return tuple(name.replace("-", "_") for name in value.decode().split(",") if name)
    return ()


def _section(elf: bytes, wanted: bytes) -> bytes:
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        (table,) = _SECTIONS_AT.unpack_from(elf, 40)
        size, count, names_index = _SECTION_COUNTS.unpack_from(elf, 58)
        sections = [_SECTION.unpack_from(elf, table + number * size) for number in range(count)]
        names = sections[names_index][4]
        for name, _, _, _, offset, length in sections:
            if elf[names + name : names + name + len(wanted) + 1] == wanted + b"\0":
                return elf[offset : offset + length]
    except (struct.error, IndexError) as error:
        raise ValueError("a damaged ELF file") from error
    raise ValueError(f"no section {wanted.decode()}")


def load_order(wanted: Iterable[str], modules: Mapping[str, bytes], built_in: Iterable[str]) -> list[str]:
    """The wanted modules and what they need, each after what it needs itself; what the kernel has built in is left out.

    :param modules: the module files by name. :raise ModuleMissing: one is nowhere.
    """
    inside = frozenset(built_in)
    order: list[str] = []

    def add(name: str, wanted_by: str) -> None:
        if name in order or name in inside:
            return
        if name not in modules:
            raise ModuleMissing(f"the kernel has no module {name}, which {wanted_by} needs")
        for needed in depends(unpacked(modules[name])):
            add(needed, name)
        order.append(name)

    for name in wanted:
        add(name, "the guest")
    return order
