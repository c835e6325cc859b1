"""The host's own kernel, for guests made of ordinary images: its image, and the drivers that such a guest needs.

It is the one that the distribution's package installed, ``/boot/vmlinuz-VERSION`` with ``/lib/modules/VERSION``, or what the configuration names. The drivers and what they
depend on come from ``modules.dep`` (modules.dep(5)), in the order of loading; what is built in is in ``modules.builtin``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from unikeel.errors import Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.memfd import sealed
from unikeel.lean import Final
from unikeel.model.plan import OwnInit
from unikeel.values import NamedTuple

#: virtio over PCI (q35) and MMIO (microvm), disk, file system, network card, power button. ext4 asks for a checksum by name, which no dependency says.
DRIVERS: Final = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "crc32c_generic", "ext4", "evdev", "button")
#: What sharing directories takes beyond them.
SHARE_DRIVERS: Final = {"virtiofs": ("virtiofs",), "9p": ("9pnet_virtio", "9p")}
#: What file systems of further disks take; those that are not here are ext4, or built in.
DISK_DRIVERS: Final = {"xfs": ("xfs",), "btrfs": ("btrfs",), "erofs": ("erofs",), "squashfs": ("squashfs",)}
#: What a virtio console takes.
CONSOLE_DRIVERS: Final = ("virtio_console",)
#: Kernels after 6.14 have it built into their library under another name.
_OPTIONAL: Final = ("crc32c_generic",)
_PREFIX: Final = "vmlinuz-"
_MEND: Final = (
    "install a kernel (Debian: apt-get install linux-image-cloud-amd64), or set kernel.image and kernel.modules"
)
#: No module is as large; nor is modules.dep.
_LARGEST: Final = 64 << 20


class DefaultKernel(NamedTuple):
    """Where a kernel and its modules are."""

    image: str
    modules: str


def find(image: str, modules: str, root: str = "/") -> DefaultKernel:
    """The kernel to use.

    :param image: its path, or empty: the newest that is installed. :param modules: as well. :param root: where ``boot`` and ``lib`` are.
    :raise Unavailable: there is none.
    """
    image = image or next(_installed(root), "")
    if not image:
        raise Unavailable("this host has no kernel to boot guests with", _MEND)
    version = os.path.basename(image).removeprefix(_PREFIX)
    found = DefaultKernel(image, modules or os.path.join(root, "lib/modules", version))
    for path in (found.image, os.path.join(found.modules, "modules.dep")):
        if not os.path.isfile(path):
            raise Unavailable(f"{path}, which guests of the default kernel need, is not there", _MEND)
    return found


def _installed(root: str) -> Iterator[str]:
    """Kernels that have their modules, the newest version first."""
    boot = os.path.join(root, "boot")
    try:
        names = [name for name in os.listdir(boot) if name.startswith(_PREFIX)]
    except OSError:
        return
    for name in sorted(names, key=_order, reverse=True):
        if os.path.isfile(os.path.join(root, "lib/modules", name.removeprefix(_PREFIX), "modules.dep")):
            yield os.path.join(boot, name)


def _order(name: str) -> list[tuple[int, str]]:
    """Numbers by value, what is between them as text."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def open_image(kernel: DefaultKernel) -> OwnedFd:
    """The kernel's image, as a file that nobody who gets it can change. :raise Unavailable: it cannot be read."""
    try:
        with OwnedFd(os.open(kernel.image, os.O_RDONLY | os.O_CLOEXEC)) as source:
            return sealed("kernel", lambda target: _copy(source.fileno(), target))
    except OSError as error:
        raise Unavailable(f"the kernel {kernel.image} cannot be read: {error.strerror}", _MEND) from None


def _copy(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    done = 0
    while done < size and (copied := os.sendfile(target, source, done, size - done)):
        done += copied


def own_init(kernel: DefaultKernel | None, more: Sequence[str] = ()) -> OwnInit:
    """Our init with a kernel's drivers; without a kernel (a monitor that has its own, with everything built in) with none.

    :param more: drivers beyond those that every guest needs.
    :raise Unavailable: the init was not built, or a driver is missing or cannot be read.
    """
    from unikeel.guests.init import building

    path = building.program()
    try:
        with open(path, "rb") as file:
            program = file.read()
    except OSError as error:
        raise Unavailable(
            f"the guests' init {path} cannot be read: {error.strerror}", "install unikeel again, or run `make launcher`"
        ) from None
    return OwnInit(program, tuple(drivers(kernel.modules, more)) if kernel is not None else ())


def drivers(modules: str, more: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    """The drivers' file names and contents, in the order of loading. :raise Unavailable: one is missing or cannot be read."""
    paths = dict(_dependencies(_text(os.path.join(modules, "modules.dep"))))
    built_in = {_name(line) for line in _text(os.path.join(modules, "modules.builtin"), needed=False).splitlines()}
    by_name = {_name(path): path for path in paths}
    done: set[str] = set()
    for driver in (*DRIVERS, *more):
        if driver in built_in or (driver in _OPTIONAL and driver not in by_name):
            continue
        if driver not in by_name:
            raise Unavailable(f"the kernel's modules in {modules} have no {driver}", _MEND)
        own = by_name[driver]
        for path in (*reversed(paths[own]), own):
            if path not in done:
                done.add(path)
                yield f"{_name(path)}.ko", _content(os.path.join(modules, path))


def _dependencies(text: str) -> Iterator[tuple[str, list[str]]]:
    """``PATH: PATH…`` in each line; what comes last is loaded first."""
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        yield path, needed.split()


def _name(path: str) -> str:
    return os.path.basename(path).partition(".")[0].replace("-", "_")


def _text(path: str, *, needed: bool = True) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LARGEST)
    except OSError as error:
        if not needed:
            return ""
        raise Unavailable(f"{path} cannot be read: {error.strerror}", _MEND) from None


def _content(path: str) -> bytes:
    """A module, as the kernel takes it: not compressed. :raise Unavailable: it cannot be read, or unpacked here."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST)
    except OSError as error:
        raise Unavailable(f"the module {path} cannot be read: {error.strerror}", _MEND) from None
    if path.endswith(".ko"):
        return data
    unpacked = _unpacked(data, os.path.splitext(path)[1])
    if unpacked is None:
        raise Unavailable(f"the module {path} is damaged, or compressed in a way that is not known here", _MEND)
    return unpacked


def _unpacked(data: bytes, suffix: str) -> bytes | None:
    if suffix == ".xz":
        import lzma

        try:
            return lzma.decompress(data)
        except lzma.LZMAError:
            return None
    if suffix == ".gz":
        import gzip
        import zlib

        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None
    return None
