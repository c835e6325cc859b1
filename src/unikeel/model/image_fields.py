"""The values of an image's configuration: which annotations are read, and what each may say."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.lean import Final
from unikeel.values import NamedTuple

PREFIX: Final = "com.urunc.unikernel."
OWN_PREFIX: Final = "org.unikeel."

#: The longest path of a boot file, and the longest value of any kind, in characters.
PATH_LIMIT: Final = 4096
VALUE_LIMIT: Final = 64 << 10
#: The longest name of a device in Solo5's manifest.
DEVICE_LIMIT: Final = 67


class GuestConfig(NamedTuple):
    """How an image wants to be run. Paths are inside the image, with or without a leading slash."""

    type: str
    monitor: str
    binary: str
    cmdline: str = ""
    version: str = ""
    initrd: str = ""
    block: str = ""
    block_mount: str = ""
    mount_rootfs: bool = False
    #: ``block``: the container's snapshot is the guest's root disk although there is an initrd, which is then only a loader; ``shared``, ``virtiofs``, ``9p``: the
    #: container's root directory is shared with the guest.
    rootfs: str = ""
    #: The machine that the image's kernel is made for: ``microvm``, ``q35``, or an empty string for no wish.
    machine: str = ""
    #: Whether the guest obeys a power button; None: what its type usually does.
    powerdown: bool | None = None
    #: What Solo5's manifest in the kernel calls its network and its block device; empty: as its type usually does.
    net_device: str = ""
    block_device: str = ""
    #: ``default``: the host's kernel boots it, with our init; :attr:`binary` says nothing then.
    kernel: str = ""
    #: What the guest's console is: ``virtio``, which its kernel has a driver for, ``serial``, or an empty string for no wish (a serial port).
    console: str = ""


def _text(value: str) -> str:
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in value):
        raise ValueError("must not contain control characters")
    return value


def _words(value: str) -> str:
    """A command line: white space separates words and has no other meaning, so line breaks of a source file do no harm."""
    return _text(" ".join(value.split()))


_PATH_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-")


def _path(value: str) -> str:
    """A clean path of a file: no ``.`` or ``..``, no empty component, no trailing slash."""
    if len(value) > PATH_LIMIT:
        raise ValueError(f"must not be longer than {PATH_LIMIT} characters")
    if not _PATH_CHARACTERS.issuperset(value):
        raise ValueError("may contain only letters, digits and the characters . _ / -")
    if any(part in ("", ".", "..") for part in value.removeprefix("/").split("/")):
        raise ValueError("must be a clean path, without '.', '..', '//' or a trailing '/'")
    return value


def _mount_point(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return value if value == "/" else _path(value)


_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


def _boolean(value: str) -> bool:
    """Exactly what Go's ``strconv.ParseBool`` takes, as image authors test with it."""
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise ValueError("must be true or false")


def _device(value: str) -> str:
    """A device's name in Solo5's manifest (Solo5, docs/architecture.md): 1 to 67 letters and digits."""
    if not value.isascii() or not value.isalnum() or len(value) > DEVICE_LIMIT:
        raise ValueError(f"must be 1 to {DEVICE_LIMIT} letters and digits")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return check


class Field(NamedTuple):
    name: str
    parse: Callable[[str], str | bool]


#: What :attr:`GuestConfig.binary` is where the host's kernel is booted.
NO_BINARY: Final = "none"

#: Every annotation that is read: its full name, the field it fills, and how its text is checked.
FIELDS: Final[dict[str, Field]] = {
    PREFIX + "unikernelType": Field("type", str),
    PREFIX + "hypervisor": Field("monitor", str),
    PREFIX + "binary": Field("binary", _path),
    PREFIX + "cmdline": Field("cmdline", _words),
    PREFIX + "unikernelVersion": Field("version", _text),
    PREFIX + "initrd": Field("initrd", _path),
    PREFIX + "block": Field("block", _path),
    PREFIX + "blkMntPoint": Field("block_mount", _mount_point),
    PREFIX + "mountRootfs": Field("mount_rootfs", _boolean),
    OWN_PREFIX + "rootfs": Field("rootfs", _one_of("block", "shared", "virtiofs", "9p")),
    OWN_PREFIX + "machine": Field("machine", _one_of("microvm", "q35")),
    OWN_PREFIX + "powerdown": Field("powerdown", _boolean),
    PREFIX + "solo5NetDev": Field("net_device", _device),
    PREFIX + "solo5BlkDev": Field("block_device", _device),
    OWN_PREFIX + "kernel": Field("kernel", _one_of("default")),
    OWN_PREFIX + "console": Field("console", _one_of("serial", "virtio")),
}
#: Without all of these, annotations are not a configuration.
REQUIRED: Final = (PREFIX + "unikernelType", PREFIX + "hypervisor", PREFIX + "binary")
