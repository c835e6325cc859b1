"""Whose pool it is: the thin device of number 0, which is no snapshot's, begins with a magic text and the pool's UUID.

The records name the same UUID. Only a pool and records that belong together may take away what the other does not know.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

from unikeel.errors import BadContent, UnikeelError
from unikeel.kernel.devmapper import Control, nodes, thin
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.snapshots.thin.errors import pool_errors
from unikeel.snapshots.thin.reference import IDENTITY_ID, ThinPoolRef

_MAGIC: Final = b"unikeel thin pool\n"
_SECTOR: Final = 4096
_SIZE: Final = 1 << 20


def write_identity(pool: ThinPoolRef) -> None:
    """Write the UUID into an active pool, which must be new. May be done again. :raise ResourceExhausted: the pool has no space."""
    with pool_errors(pool.name, f"write the identity of the pool {pool.name!r}"), Control() as control:
        with suppress(FileExistsError):
            control.message(pool.dm_name, thin.create_thin(IDENTITY_ID))
        with OwnedFd(os.open(_show(control, pool), os.O_RDWR | os.O_CLOEXEC)) as device:
            os.pwrite(device.fileno(), (_MAGIC + pool.uuid.encode("ascii") + b"\n").ljust(_SECTOR, b"\0"), 0)
            os.fsync(device.fileno())


def read_identity(pool: ThinPoolRef) -> str:
    """The UUID in an active pool; empty if there is none. :raise BadContent: what is there is not ours.

    The device stays active, as long as the pool does, so that to ask again costs next to nothing.
    """
    with pool_errors(pool.name, f"read the identity of the pool {pool.name!r}"), Control() as control:
        try:
            return _parsed(pool, _first_sector(_show(control, pool)))
        except OSError as error:
            if error.errno != errno.ENODATA:  # the pool has no device 0
                raise
            return ""


def _first_sector(path: str) -> bytes:
    """Past the page cache, which may still hold what the number's last device began with."""
    with (
        OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)) as device,
        mmap.mmap(-1, _SECTOR) as page,
    ):
        os.preadv(device.fileno(), [page], 0)
        return page[:]


def _parsed(pool: ThinPoolRef, sector: bytes) -> str:
    uuid, _, _ = sector.removeprefix(_MAGIC).partition(b"\n")
    if not sector.startswith(_MAGIC) or len(uuid) > 64 or not uuid.isalnum():
        raise BadContent(f"device 0 of the pool {pool.name!r} does not hold an identity of ours")
    return uuid.decode("ascii")


def _show(control: Control, pool: ThinPoolRef) -> str:
    """Make device 0 active, if it is not; its path. Whoever does so at the same time does the same."""
    name = pool.thin_name(IDENTITY_ID)
    info = control.info(name)
    if info is None:
        try:
            info = control.create(name, pool.thin_uuid(IDENTITY_ID))
        except OSError as error:
            if error.errno != errno.EBUSY or (info := control.info(name)) is None:
                raise
    if not info.live:
        try:
            control.load(name, thin.thin_table(pool.device, IDENTITY_ID, _SIZE))
        except OSError:
            with suppress(UnikeelError, OSError):
                control.remove(name)
            raise
        info = control.resume(name)
    if info.uuid != pool.thin_uuid(IDENTITY_ID):
        raise BadContent(f"the device {name} is not of the pool {pool.name!r}")
    return nodes.ensure(info)
