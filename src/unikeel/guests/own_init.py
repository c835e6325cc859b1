"""The archive that makes an ordinary container image a guest: our own init, what it is told, and the drivers that it loads.

The init is a static program of ours (``guests/init``). It is told everything in one file, texts that each begin with a letter and a colon and end with NUL, since a
kernel command line has limits, and quotes. The letters are those of ``init/settings.h``.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.model import cpio
from unikeel.model.names import quote
from unikeel.model.plan import ROOT_SHARE, VOLUMES, LaunchRequest, Mounted, TapNet

SETTINGS: Final = "/unikeel.conf"
MODULES: Final = "/modules"
#: Where, in the archive, copies of volumes are: entries with numbers for names.
COPIES: Final = "/volumes"
#: As ``MOST_WORDS`` and ``MOST_GROUPS`` of ``init/settings.h``.
WORDS_LIMIT: Final = 4096
#: The file system that containers' disks have.
_FILE_SYSTEM: Final = "ext4"
#: How Linux mounts what is shared with it (Documentation/filesystems/9p.rst).
MOUNT_OPTIONS: Final = {"virtiofs": "", "9p": "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"}


def archive(request: LaunchRequest, disk: str, console: str = "") -> bytes:
    """The archive, for a request that has :attr:`~unikeel.model.plan.LaunchRequest.own`.

    :param disk: what the first disk is called in the guest, with an ``a`` at its end. :param console: the guest's console, if it is there only with its driver.
    :raises InvalidArgument: there is no program to run, or a value has a NUL.
    """
    own = request.own
    assert own is not None
    files = {
        "/init": cpio.File(own.program, 0o755),
        SETTINGS: cpio.File(settings(request, disk, console), 0o400),
        **{f"{MODULES}/{name}": cpio.File(data, 0o400) for name, data in own.modules},
        **dict(request.added),
    }
    return cpio.archive(files)


def settings(request: LaunchRequest, disk: str, console: str = "") -> bytes:
    """What the init is told; parameters and errors as of :func:`archive`."""
    if not request.args:
        raise InvalidArgument(
            "the image names no program to run, and none is given", "give one: unikeel run IMAGE PROGRAM…"
        )
    if len(request.args) > WORDS_LIMIT or len(request.env) > WORDS_LIMIT:
        raise InvalidArgument(f"a guest takes at most {WORDS_LIMIT} arguments and as many variables")
    return b"".join(_text(letter, value) for letter, value in _texts(request, disk, console))


def _texts(request: LaunchRequest, disk: str, console: str) -> Iterator[tuple[str, str]]:
    if console:
        yield ("c", console)
    yield from (("h", request.hostname), ("w", request.workdir), ("u", str(request.uid)), ("p", str(request.gid)))
    root = request.share(ROOT_SHARE)
    if root is not None:
        yield from (("d", root.tag), ("t", root.kind), ("o", MOUNT_OPTIONS[root.kind]))
    elif request.disk is not None:
        yield from (("d", disk), ("t", _FILE_SYSTEM))
    if root.read_only if root is not None else request.disk is not None and request.disk.read_only:
        yield ("r", "")
    volumes = request.share(VOLUMES)
    if volumes is not None:
        yield from (("x", volumes.kind), ("y", MOUNT_OPTIONS[volumes.kind]))
    for volume in _mounted(request, disk):
        yield ("v", f"{volume.name}:{'r' if volume.read_only else 'w'}:{volume.target}")
    network = request.network
    if network is not None:
        if network.address:
            yield from (("i", f"{network.address}/{network.prefix}"), ("g", network.gateway))
        if isinstance(network, TapNet) and network.address6:
            yield from _ipv6(network)
        if network.dns:
            yield ("n", network.dns)
    for name, _ in request.own.modules if request.own else ():
        yield ("m", name)
    for variable in request.env:
        yield ("e", variable)
    for word in request.args:
        yield ("a", word)


def _mounted(request: LaunchRequest, disk: str) -> list[Mounted]:
    """Volumes and disks, what is beneath another after it. A disk's name is its device, a comma and its file system, if it is to be mounted."""
    first = ord(disk[-1]) + (request.disk is not None)
    disks = [
        Mounted(f"{disk[:-1]}{chr(letter)},{extra.file_system}", extra.target, extra.disk.read_only)
        for letter, extra in enumerate(request.extra, start=first)
    ]
    return sorted((*request.volumes, *disks), key=lambda volume: volume.target.count("/"))


def _ipv6(network: TapNet) -> Iterator[tuple[str, str]]:
    """Addresses as 32 hexadecimal digits: the init need not know the shorter forms."""
    import ipaddress

    yield ("j", f"{ipaddress.IPv6Address(network.address6).packed.hex()}/{network.prefix6}")
    if network.gateway6:
        yield ("k", ipaddress.IPv6Address(network.gateway6).packed.hex())


def _text(letter: str, value: str) -> bytes:
    if "\0" in value:
        raise InvalidArgument(f"{quote(value)} cannot be passed to a guest: it contains a NUL")
    return f"{letter}:{value}".encode(errors="surrogateescape") + b"\0"
