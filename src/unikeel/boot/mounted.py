"""Mounting committed snapshots where nobody sees it, and opening boot files in them for a monitor's user.

A mount made here is detached: it has no place in the mount table and ends with its last descriptor or open file, also when we are
killed; the loop device beneath an ext4 image clears itself likewise. Before the kernel sees an image, our reader has
looked at its superblock: what it refuses (damage, a journal to be recovered) is not mounted. What the steps are for a snapshotter's
mounts, :mod:`.hostmounts` says; they are taken here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from unikeel.boot.contract import BootFile, HostMount, Wanted
from unikeel.boot.hostmounts import READABLE, Place, Step, plan
from unikeel.boot.sources import DAMAGED, open_mounted, open_source
from unikeel.errors import BadContent, Unavailable
from unikeel.kernel import idmap, locks, loop, mounts
from unikeel.kernel.fd import OwnedFd, link_of
from unikeel.kernel.paths import open_beneath
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY


class Mounter:
    """Mounts committed snapshots. :param locks: directory of lock files, so that an image gets one loop device only."""

    def __init__(self, locks: str) -> None:
        self._locks = locks

    def mount(self, host: Sequence[HostMount], namespace: int | None = None, later: ExitStack | None = None) -> OwnedFd:
        """A detached mount of what the mounts describe: read-only, nosuid, nodev, noexec, no journal replay.

        :param namespace: a user namespace by which its owners are mapped. :param later: what can wait until the caller has the mount is left for when this
            is closed, which must be soon.
        :raise BadContent: the image is not one that may be mounted. :raise Unavailable: the kernel does not mount it.
        """
        *before, last = plan(host)
        with ExitStack() as stack:
            beneath = [stack.enter_context(self._step(step, [], None)) for step in before]
            return self._step(last, beneath, namespace, later)

    def _step(
        self, step: Step, beneath: Sequence[OwnedFd], namespace: int | None, later: ExitStack | None = None
    ) -> OwnedFd:
        what = step.source or "the layers"
        try:
            if step.driver == "overlay":
                return self._union(step, beneath, namespace)
            with open_source(step.source) as image:
                if step.fstype in READABLE:
                    _look_first(image)
                mount = self._image(image, step, later)
            return mount if namespace is None else _mapped(mount, namespace)
        except OSError as error:
            if error.errno in DAMAGED:
                raise BadContent(f"the file system in {what} is damaged: {error.strerror}") from error
            raise Unavailable(f"{what} cannot be mounted: {error.strerror}") from error

    def _image(self, image: OwnedFd, step: Step, later: ExitStack | None) -> OwnedFd:
        is_device = stat.S_ISBLK(os.fstat(image.fileno()).st_mode)
        if step.driver == "erofs":
            try:
                return mounts.detached_mount("erofs", link_of(image.fileno()), step.options)
            except OSError as error:
                if is_device or error.errno != errno.ENOTBLK:  # mounts from files are Linux 6.12
                    raise
        if is_device:
            return mounts.detached_mount(step.driver, link_of(image.fileno()), step.options)
        with self._loop(image, later) as device:
            failpoint("boot.mount.loop")
            return mounts.detached_mount(step.driver, device, step.options)

    @contextmanager
    def _loop(self, image: OwnedFd, later: ExitStack | None) -> Iterator[str]:
        """The path of the image's loop device, held open until it is mounted.

        To mount it takes a few blocks that mostly are in the page cache, so that whoever waits for the mount is quicker served through that; what is read of
        the files is not to be cached twice, so that it does direct I/O from then on.
        """
        info = os.fstat(image.fileno())
        with locks.locked(os.path.join(self._locks, f"{info.st_dev:x}-{info.st_ino:x}.loop")):
            device = loop.find_or_attach(image.fileno(), direct=later is None)
        if later is not None:
            later.callback(device.close)
            later.callback(loop.use_direct_io, device)
        try:
            yield device.path
        finally:
            if later is None:
                device.close()

    def _union(self, step: Step, beneath: Sequence[OwnedFd], namespace: int | None) -> OwnedFd:
        from unikeel.kernel import overlay

        options = [key if value is None else f"{key}={value}" for key, value in step.options]
        with ExitStack() as stack:
            layers = [_layer(place, beneath, namespace, stack) for place in step.layers]
            return overlay.union(layers, self._locks, options)


def _layer(place: Place, beneath: Sequence[OwnedFd], namespace: int | None, stack: ExitStack) -> str | OwnedFd:
    """A directory as a union takes it: its path, or a detached mount of it, which is the only one whose owners can be mapped."""
    if place.mount < 0 and namespace is None:
        return place.path
    if place.mount < 0:
        layer = mounts.open_tree_clone(place.path)
    elif place.path.strip("/"):
        root = stack.enter_context(open_beneath(beneath[place.mount].fileno(), place.path, _DIRECTORY))
        layer = mounts.open_tree_clone("", dirfd=root.fileno())
    elif namespace is None:
        return beneath[place.mount]
    else:
        layer = mounts.open_tree_clone("", dirfd=beneath[place.mount].fileno())
    return stack.enter_context(layer if namespace is None else _mapped(layer, namespace))


def _mapped(mount: OwnedFd, namespace: int) -> OwnedFd:
    try:
        mounts.set_attributes(mount, user_namespace=namespace)
    except BaseException:
        mount.close()
        raise
    return mount


def _look_first(image: OwnedFd) -> None:
    """:raise BadContent: our reader refuses the image."""
    from unikeel.boot.readers import open_reader

    open_reader(image.fileno()).close()


def open_all(
    mount: OwnedFd, wanted: Sequence[Wanted], monitor_uid: int, remake: Callable[[int], OwnedFd]
) -> dict[str, BootFile]:
    """Open the files in a mount so that the monitor's user can re-open them; all or none.

    :param remake: another mount of the same whose owners a user namespace maps, for kernels that cannot clone a detached one (before
        Linux 6.15), and for unions, which are mapped layer by layer.
    """
    files: dict[str, BootFile] = {}
    try:
        for want in wanted:
            fd = _open_for(mount, want, monitor_uid, remake)
            files[want.role] = BootFile(want.role, want.path, fd, os.fstat(fd.fileno()).st_size)
    except BaseException:
        for file in files.values():
            file.fd.close()
        raise
    return files


def readable_by(info: os.stat_result, uid: int) -> bool:
    """Whether a user without capabilities, whose groups we don't know, surely may read a file."""
    if info.st_uid == uid:
        return bool(info.st_mode & stat.S_IRUSR)
    return info.st_mode & (stat.S_IRGRP | stat.S_IROTH) == stat.S_IRGRP | stat.S_IROTH


def _open_for(mount: OwnedFd, want: Wanted, uid: int, remake: Callable[[int], OwnedFd]) -> OwnedFd:
    fd = open_mounted(mount.fileno(), want)
    info = os.fstat(fd.fileno())
    if readable_by(info, uid):
        return fd
    fd.close()
    if not info.st_mode & stat.S_IRUSR:
        raise Unavailable(f"{want.path} is readable for nobody (mode {stat.S_IMODE(info.st_mode):04o})")
    with (
        idmap.single_mapping((info.st_uid, info.st_gid), (uid, uid)) as namespace,
        _clone(mount, namespace.fileno(), remake) as mapped,
    ):
        return open_mounted(mapped.fileno(), want)


def _clone(mount: OwnedFd, namespace: int, remake: Callable[[int], OwnedFd]) -> OwnedFd:
    try:
        return _mapped(mounts.open_tree_clone("", dirfd=mount.fileno()), namespace)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise Unavailable(f"the image's file system cannot be id-mapped: {error.strerror}") from error
    try:
        return remake(namespace)
    except OSError as error:
        raise Unavailable(f"the image's file system cannot be id-mapped: {error.strerror}") from error
