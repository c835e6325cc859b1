"""What of the host a guest has by shared directories: its root, its volumes; how it is reached, and who serves it.

Every directory is a detached tree of mounts, seen by nobody but who serves it: nosuid, nodev, noexec. By virtiofs that is a server in a sandbox of its own, by 9p the
monitor itself, for whose user the owner of each directory is mapped where the file system can do that. Sandboxes and sockets have names that follow from the container's,
so that whoever comes after a kill finds them (:func:`remove`).
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from unikeel.engine.layout import SERVERS
from unikeel.errors import FailedPrecondition, InvalidArgument, Unavailable
from unikeel.kernel import mounts, trees
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.paths import remove_tree
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.model.cpio import File
from unikeel.model.names import quote
from unikeel.model.plan import ROOT_SHARE, VOLUMES, Attached, Mounted, Share
from unikeel.model.volumes import Volume
from unikeel.model.ways import Way
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import file_server, remains
from unikeel.sandbox.root import prepare_root
from unikeel.sandbox.sockets import listen
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.engine.layout import Layout
    from unikeel.engine.services import Services

#: The file servers of a container, by what each serves.
_SERVERS: Final = dict(zip((ROOT_SHARE, VOLUMES), SERVERS, strict=True))
_WRITABLE: Final = mounts.Attributes(read_only=False)


class Wanted(NamedTuple):
    """What a guest is to have.

    ``root`` makes the detached mount of its root, for a user namespace or none; ``root_kind`` and ``volumes_kind`` are ``virtiofs``, ``9p`` or empty.
    """

    ident: str
    uid: int
    root: Callable[[], OwnedFd] | None = None
    root_kind: str = ""
    root_read_only: bool = False
    volumes: Sequence[Volume] = ()
    way: Way = Way.NONE
    volumes_kind: str = ""
    #: It boots with our own init, which mounts copies from its initrd.
    own_init: bool = False
    #: The cgroup that a caller wants the monitor in, which its file servers are beside; empty: one of our own.
    cgroup: str = ""
    #: The guest's memory in MiB.
    memory_mib: int = 0


class Shared(NamedTuple):
    """What it gets: the shares of the request, the descriptors for them, the volumes of the second one, files for the initrd; and the servers' processes."""

    shares: tuple[Share, ...] = ()
    fds: tuple[int, ...] = ()
    volumes: tuple[Mounted, ...] = ()
    added: tuple[tuple[str, File], ...] = ()
    #: Why optional volumes are left out, and what else is not as a user may think, a sentence each.
    told: tuple[str, ...] = ()
    #: Disks that are copies, and their descriptors.
    extra: tuple[Attached, ...] = ()
    extra_fds: tuple[int, ...] = ()


def share(services: Services, wanted: Wanted, stack: ExitStack) -> Shared:
    """Have everything reached and served. What is opened, ``stack`` closes.

    :raise InvalidArgument: a volume is not there, or cannot be where it is wanted. :raise Unavailable: there is no server, or it does not start.
    """
    with ExitStack() as parts:
        result = _copied(wanted, stack) if wanted.way in (Way.ARCHIVE, Way.COPIES) else Shared()
        if wanted.root is not None:
            root = wanted.root()
            if wanted.way is Way.ROOT:
                found = [_part(volume.target, volume, wanted.root_kind, wanted.uid, parts) for volume in wanted.volumes]
                root = _tree(services, lambda scratch: trees.composed(root, found, scratch))
            tree = parts.enter_context(root)
            result = _serve(
                services, wanted, result, tree, Share(ROOT_SHARE, wanted.root_kind, wanted.root_read_only), stack
            )
        if wanted.way is Way.SHARE:
            named = list(enumerate(wanted.volumes))
            found = [_part(f"/{number}", volume, wanted.volumes_kind, wanted.uid, parts) for number, volume in named]
            tree = parts.enter_context(_tree(services, lambda scratch: trees.gathered(found, scratch)))
            result = _serve(services, wanted, result, tree, Share(VOLUMES, wanted.volumes_kind), stack)
            result = result._replace(
                volumes=tuple(Mounted(str(number), volume.target, volume.read_only) for number, volume in named)
            )
    return result


def _copied(wanted: Wanted, stack: ExitStack) -> Shared:
    from unikeel.engine import copies

    if wanted.way is Way.COPIES:
        disks = copies.disks(wanted.volumes, stack)
        return Shared(extra=disks.extra, extra_fds=disks.fds, told=disks.told)
    found = copies.files(wanted.volumes, apart=wanted.own_init)
    return Shared(added=found.files, volumes=found.mounted, told=found.told)


def _part(path: str, volume: Volume, kind: str, uid: int, stack: ExitStack) -> trees.Part:
    attributes = mounts.SEALED if volume.read_only else _WRITABLE
    try:
        if stat.S_ISBLK(os.stat(volume.source).st_mode):
            raise InvalidArgument(
                f"the volume {quote(volume.source)} is a block device, and is not to be given to a guest as a file",
                "name it by a path beneath /dev, or as a disk: HOST:GUEST:disk",
            )
        mapped = _mapped(volume.source, attributes, uid) if kind == "9p" else None
        mount = mapped or trees.clone(volume.source, attributes)
    except OSError as error:
        raise InvalidArgument(
            f"the volume {quote(volume.source)} cannot be given to a guest: {error.strerror}"
        ) from None
    return trees.Part(path, stack.enter_context(mount))


def _mapped(path: str, attributes: mounts.Attributes, uid: int) -> OwnedFd | None:
    """The mount with the owner of its root mapped to the monitor's user; None where that cannot be."""
    from unikeel.kernel.idmap import single_mapping

    info = os.stat(path)
    try:
        with single_mapping((info.st_uid, info.st_gid), (uid, uid)) as namespace:
            return trees.clone(path, attributes, user_namespace=namespace.fileno())
    except (OSError, Unavailable):
        return None


def scratch(services: Services) -> str:
    """A directory that trees are put together over, each in a namespace that nobody else is in."""
    path = os.path.join(services.layout.run, "scratch")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _tree(services: Services, make: Callable[[str], OwnedFd]) -> OwnedFd:
    try:
        return make(scratch(services))
    except trees.NoPlace as error:
        raise InvalidArgument(
            f"no volume can be at {quote(str(error.filename))} in the guest: {error.strerror}",
            "name a place that the image has, or that can be made there",
        ) from None


# -- who serves them -----------------------------------------------------------------------------------------------------


def _serve(services: Services, wanted: Wanted, so_far: Shared, tree: OwnedFd, share: Share, stack: ExitStack) -> Shared:
    if share.kind == "9p":
        fd = stack.enter_context(tree.duplicate()).fileno()
    else:
        fd = _start_server(services, wanted, share, tree, stack)
    return so_far._replace(shares=(*so_far.shares, share), fds=(*so_far.fds, fd))


def _start_server(services: Services, wanted: Wanted, share: Share, tree: OwnedFd, stack: ExitStack) -> int:
    """A server of a directory, in its sandbox; the descriptor of a connection to it."""
    from unikeel.sandbox.carrying import is_systemd
    from unikeel.sandbox.cgroups import beside
    from unikeel.sandbox.spec import build

    ident, plan = wanted.ident, file_server.plan(file_server.find(services.config.monitor_virtiofsd_path))
    name = f"{ident}.{_SERVERS[share.tag]}"
    prepare_root(services.layout.sandbox_root, plan.binds)
    cgroup = beside(wanted.cgroup, name)
    server = file_server.Server(name, services.layout.sandbox_root, cgroup, _most_files(), wanted.memory_mib)
    directory = services.layout.container(ident)
    bundle = os.path.join(directory, _SERVERS[share.tag])
    remove_tree(bundle)
    os.mkdir(bundle, mode=0o700)
    with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump(build(file_server.sandbox(server, plan)), file)
    failpoint("share.bundle")
    path = os.path.join(directory, f"{_SERVERS[share.tag]}.sock")
    with closing(listen(directory, os.path.basename(path))) as listener:
        ours = stack.enter_context(_connected(directory, os.path.basename(path)))
        os.unlink(path)
        fds = (listener.fileno(), tree.fileno())
        said = services.sandboxes.run_detached(name, bundle, fds, mark=ident, systemd=is_systemd(cgroup))
    failpoint("share.started")
    if said:
        raise FailedPrecondition(f"the file server for {share.tag} of {ident} does not start: {said}")
    return ours.fileno()


def _connected(directory: str, name: str) -> socket.socket:
    """A connection that waits to be accepted."""
    from unikeel.keeper.wire import short_path

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(directory, name) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


def _most_files() -> int:
    """How many files a process of ours may have open, at most."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _cgroup(bundle: str) -> str:
    """Where the cgroup of a file server is, as its bundle says; empty: it does not, so that nothing was started by it."""
    from unikeel.sandbox.cgroups import path_of

    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            return path_of(str(json.loads(file.read())["linux"]["cgroupsPath"]))
    except (OSError, ValueError):
        return ""


def remove(services: Services, layout: Layout, ident: str) -> None:
    """Take the file servers of a container away, however far they had come; none is fine. :raise Unavailable: one does not die."""
    for suffix in SERVERS:
        name, bundle = f"{ident}.{suffix}", os.path.join(layout.container(ident), suffix)
        if not os.path.lexists(bundle):
            continue  # the bundle is made first and removed last
        if os.path.isdir(os.path.join(layout.runtime_state, name)):
            services.sandboxes.delete(name)
        failpoint("share.deleted")
        remains.remove_cgroups(name, _cgroup(bundle))
        remove_tree(os.path.join(layout.runtime_state, name))
        path = os.path.join(layout.container(ident), f"{suffix}.sock")
        if os.path.lexists(path):
            os.unlink(path)
        remove_tree(bundle)
