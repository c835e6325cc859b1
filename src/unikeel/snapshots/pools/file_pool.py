"""Pools of the kind ``file``: XFS in one large file, for hosts whose own file system does not let files share blocks."""

from __future__ import annotations

import errno
import os
import subprocess
import uuid

from unikeel.errors import BadContent, FailedPrecondition, Unavailable
from unikeel.kernel import loop, mounts, xfs
from unikeel.kernel.fd import open_path
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.image_files import translated
from unikeel.snapshots.pools import backing
from unikeel.snapshots.pools.definition import Pool
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import Fill, PoolFill

_MKFS_SECONDS: Final = 600
_SEALED_EXCEPT_WRITING: Final = mounts.Attributes(read_only=False)
#: Below the mounted file system, so that nothing of XFS's own is among the images.
_IMAGES: Final = "snapshots"


class FilePool:
    """One pool of the kind ``file``."""

    def __init__(self, registry: Registry, pool: Pool) -> None:
        self.pool = pool
        self._file = registry.data_file(pool.name)
        self._mounted = registry.mounted(pool.name)

    @property
    def directory(self) -> str:
        """Where a store keeps its images while the pool is active."""
        return os.path.join(self._mounted, _IMAGES)

    def make(self) -> None:
        """Make the file and its file system. :raise Unavailable: there is no mkfs.xfs. :raise ResourceExhausted: no room."""
        program = _mkfs()
        backing.ensure_file(self._file, self.pool.size, sparse=self.pool.sparse)
        failpoint("pools.file.allocated")
        # -K: nothing is discarded, or the file would lose the room that it was given.
        words = [program, "-q", "-K", "-f", "-m", f"reflink=1,uuid={uuid.UUID(self.pool.uuid)}", self._file]
        done = subprocess.run(
            words,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MKFS_SECONDS,
            env={"LC_ALL": "C"},
        )
        if done.returncode:
            text = " ".join(done.stderr.decode(errors="replace").split())[:300]
            raise Unavailable(f"mkfs.xfs cannot make the file system of pool {self.pool.name!r}: {text}")
        with translated(f"write the file system of pool {self.pool.name!r}"):
            with backing.open_file(self._file) as file:
                os.fsync(file.fileno())
            os.mkdir(self._mounted, 0o700)
        failpoint("pools.file.formatted")

    def is_active(self) -> bool:
        """Whether its own file system is mounted where it belongs. :raise FailedPrecondition: another one is."""
        if not mounts.is_mount_point(self._mounted):
            return False
        device = os.stat(self._mounted).st_dev
        path = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file"
        with backing.open_file(self._file) as file:
            shown = loop.attached_to(os.fstat(file.fileno()))
        if os.path.exists(path) and os.path.basename(os.path.dirname(os.path.dirname(os.path.realpath(path)))) in shown:
            return True
        raise FailedPrecondition(
            f"something else is mounted at {self._mounted}, where pool {self.pool.name!r} belongs", "unmount it"
        )

    def activate(self) -> None:
        """Mount it, if it is not mounted; finish a growth that was begun. :raise BadContent: the file holds another file system, or is gone."""
        if self.pool.size and backing.ensure_file(self._file, self.pool.size, sparse=self.pool.sparse):
            backing.measure_again(self._file)
        if not self.is_active():
            self._mount()
        with translated(f"look into pool {self.pool.name!r}"):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            with open_path(self._mounted, os.O_RDONLY | os.O_DIRECTORY) as root:
                xfs.grow(root.fileno(), self.pool.size)

    def _mount(self) -> None:
        self._check_identity()
        with translated(f"mount pool {self.pool.name!r}"):
            device = backing.attach(self._file)
            with device.fd:
                failpoint("pools.file.attached")
                tree = mounts.detached_mount("xfs", device.path, attributes=_SEALED_EXCEPT_WRITING)
            with tree:
                failpoint("pools.file.mounted")
                mounts.move_mount(tree, self._mounted)
        failpoint("pools.file.active")

    def _check_identity(self) -> None:
        with backing.open_file(self._file) as file:
            found = xfs.uuid_of(file.fileno())
        if found != self.pool.uuid:
            text = f"the file system {found}" if found else "no XFS file system"
            raise BadContent(
                f"{self._file} holds {text} instead of pool {self.pool.name!r} ({self.pool.uuid})",
                "put the pool's own file back",
            )

    def fill(self) -> PoolFill:
        """How full it is; it is active."""
        try:
            found = os.statvfs(self._mounted)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return PoolFill(Fill(0, 0), None, "shut down after an error of its disk")
        total = found.f_blocks * found.f_frsize
        return PoolFill(Fill(total - found.f_bfree * found.f_frsize, total))

    def deactivate(self) -> None:
        """Unmount it, if it is mounted. :raise FailedPrecondition: it is in use."""
        try:
            if self.is_active():
                mounts.unmount(self._mounted)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise FailedPrecondition(f"pool {self.pool.name!r} is in use", "stop and remove what uses it") from None

    def wipe(self) -> None:
        """Nothing: the file goes with the pool's directory."""


def _mkfs() -> str:
    program = find_program("mkfs.xfs")
    if not program:
        raise Unavailable("mkfs.xfs is not installed", "install xfsprogs")
    return program
