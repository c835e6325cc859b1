"""Read-only unions of directories, detached as all mounts of ours: overlayfs without an upper layer.

Each lower layer is handed over by itself (``lowerdir+``, Linux 6.8), so that their number and length have no bound but overlayfs's
own 500. Layers that are detached mounts are taken from Linux 6.15 on. Elsewhere the union is made by mount(2) in a mount
namespace that exists only meanwhile, in which the layers have short names. Sources: Documentation/filesystems/overlayfs.rst, mount(2),
unshare(2), mount_namespaces(7).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from unikeel.errors import Unavailable
from unikeel.kernel import libc, mounts
from unikeel.kernel.fd import OwnedFd, link_of
from unikeel.lean import Final, TypeVar

T = TypeVar("T")

_CLONE_NEWNS: Final = 0x20000
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
#: What fits into the one page that mount(2) takes.
_DATA_BYTES: Final = 4095

#: A layer: a directory's path, or a detached mount.
Layer = str | OwnedFd


def union(layers: Sequence[Layer], scratch: str, options: Sequence[str] = ()) -> OwnedFd:
    """A detached read-only mount of directories, the uppermost first: nosuid, nodev, noexec.

    One directory alone (which overlayfs refuses) is cloned instead.

    :param scratch: a directory, covered for a moment in a namespace that nobody else is in, on older kernels.
    :param options: further options of overlayfs, as of mount(8).
    :raise OSError: what the kernel says. :raise Unavailable: it lacks the calls.
    """
    if len(layers) == 1:
        return _alone(layers[0])
    parameters = [tuple(option.partition("=")[::2]) for option in options]
    given = [
        ("ro", None),
        *(("lowerdir+", layer if isinstance(layer, str) else link_of(layer.fileno())) for layer in layers),
    ]
    try:
        return mounts.detached_mount(
            "overlay", "overlay", [*given, *((key, value or None) for key, value in parameters)]
        )
    except OSError as error:
        try:
            return in_private_namespace(lambda: _attached(layers, scratch, options))
        except OSError as again:
            raise again from error


def writable(layers: Sequence[Layer], upper: str, work: str, scratch: str, namespace: int | None = None) -> OwnedFd:
    """A detached mount of directories, the uppermost first, through which changes go to another one: nosuid, nodev, noexec.

    :param upper: where the changes are. :param work: an empty directory beside it.
    :param scratch: as of :func:`union`. :param namespace: a user namespace by which owners are mapped; those in layers that are detached mounts are already.
    :raise OSError: what the kernel says, of a file system that ``upper`` cannot be on, too.
    """
    attributes = mounts.Attributes(read_only=False)
    if namespace is not None:
        return in_private_namespace(lambda: _attached_writable(layers, upper, work, scratch, namespace))
    given = [("lowerdir+", layer if isinstance(layer, str) else link_of(layer.fileno())) for layer in layers]
    try:
        return mounts.detached_mount("overlay", "overlay", [*given, ("upperdir", upper), ("workdir", work)], attributes)
    except OSError as error:
        try:
            return in_private_namespace(lambda: _attached_writable(layers, upper, work, scratch))
        except OSError as again:
            raise again from error


def _attached_writable(
    layers: Sequence[Layer], upper: str, work: str, scratch: str, namespace: int | None = None
) -> OwnedFd:
    """Runs in the private namespace. The layers have short names, since a comma or colon in them would need escapes."""
    with ExitStack() as stack:
        changes = stack.enter_context(_mapped_clone(os.path.dirname(upper), namespace))
        trees = [
            stack.enter_context(_mapped_clone(layer, namespace)) if isinstance(layer, str) else layer
            for layer in layers
        ]
        attributes = mounts.Attributes(read_only=False)
        room = stack.enter_context(mounts.detached_mount("tmpfs", None, (("mode", "0700"),), attributes))
        mounts.move_mount(room, scratch)
        os.chdir(scratch)
        for number, tree in enumerate(trees):
            os.mkdir(str(number))
            mounts.move_mount(tree, str(number))
        for name in ("changes", "union"):
            os.mkdir(name)
        mounts.move_mount(changes, "changes")
        lower = ":".join(str(number) for number in range(len(trees)))
        data = f"lowerdir={lower},upperdir=changes/{os.path.basename(upper)},workdir=changes/{os.path.basename(work)}"
        if len(data) > _DATA_BYTES:
            raise Unavailable(
                f"{len(layers)} layers are more than this kernel's overlayfs takes", "use Linux 6.8 or later"
            )
        _mount("overlay", "union", "overlay", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, data)
        return mounts.open_tree_clone("union")


def _mapped_clone(path: str, namespace: int | None) -> OwnedFd:
    clone = mounts.open_tree_clone(path)
    if namespace is not None:
        try:
            mounts.set_attributes(clone, mounts.Attributes(read_only=False), user_namespace=namespace)
        except BaseException:
            clone.close()
            raise
    return clone


def _alone(layer: Layer) -> OwnedFd:
    if isinstance(layer, str):
        return mounts.sealed_clone(layer)
    mounts.set_attributes(layer)
    return layer.duplicate()


def in_private_namespace(work: Callable[[], T]) -> T:
    """Run something in a mount namespace of its own, in a thread that ends with it; what it mounts there nobody else sees.

    :raise OSError: there is no such namespace for us; and what ``work`` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if libc.library().unshare(_CLONE_NEWNS) != 0:
                raise libc.fail("making a mount namespace")
            _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            errors.append(error)

    thread = threading.Thread(target=run, name="mount namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _attached(layers: Sequence[Layer], scratch: str, options: Sequence[str]) -> OwnedFd:
    """Runs in the private namespace, whose current directory is the thread's own too."""
    writable = mounts.Attributes(read_only=False)
    with ExitStack() as stack:
        room = stack.enter_context(mounts.detached_mount("tmpfs", None, (("mode", "0700"),), writable))
        mounts.move_mount(room, scratch)
        os.chdir(scratch)
        for number, layer in enumerate(layers):
            os.mkdir(str(number))
            tree = stack.enter_context(mounts.open_tree_clone(layer)) if isinstance(layer, str) else layer
            mounts.move_mount(tree, str(number))
        os.mkdir("union")
        data = ",".join(["lowerdir=" + ":".join(str(number) for number in range(len(layers))), *options])
        if len(data) > _DATA_BYTES:
            raise Unavailable(
                f"{len(layers)} layers are more than this kernel's overlayfs takes", "use Linux 6.8 or later"
            )
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount("overlay", "union", "overlay", flags, data)
        return mounts.sealed_clone("union")


def _mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    import ctypes

    values = [None if value is None else os.fsencode(value) for value in (source, target, fstype, data)]
    if libc.library().mount(values[0], values[1], values[2], ctypes.c_ulong(flags), values[3]) != 0:
        raise libc.fail(f"mounting {fstype or 'anew'} at {target}")
