"""What making, growing or mending a pool would do, decided before anything is touched: values for people to read and for :mod:`.carrying` to carry out."""

from __future__ import annotations

from unikeel.errors import InvalidArgument
from unikeel.kernel.devmapper import Target
from unikeel.lean import Final
from unikeel.snapshots.pools.definition import MOST, Pool, PoolKind, PoolState, check_name
from unikeel.values import NamedTuple

_SECTOR: Final = 512
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30

#: A thin pool's unit: what a write to a shared block copies, and what each mapping of the metadata stands for.
BLOCK_SIZE: Final = 64 * _KIB
#: The kernel's bounds of that, which also has to be a multiple of the smaller one.
LEAST_BLOCK: Final = 64 * _KIB
MOST_BLOCK: Final = _GIB
#: mkfs.xfs makes nothing smaller.
LEAST_XFS: Final = 300 * _MIB
#: Enough for one small image; less is a mistake.
LEAST_THIN: Final = 64 * _MIB
LEAST_METADATA: Final = 4 * _MIB
#: The kernel uses no more (15.875 GiB; DM_SM_METADATA_MAX_BLOCKS).
MOST_METADATA: Final = 255 * ((1 << 14) - 64) * 4096
#: What the metadata needs for each data block: 48 bytes where nothing is shared, and as much again for every snapshot that is written to.
_METADATA_PER_BLOCK: Final = 128


class Device(NamedTuple):
    """A block device as the caller named it: what was found out about it without writing.

    :ivar identity: major and minor, which two names of one device share. :ivar size: in bytes. :ivar content: what it holds
        already (``a file system (ext4)``), or empty.
    """

    path: str
    identity: tuple[int, int]
    size: int
    content: str = ""


class Request(NamedTuple):
    """What ``pool create`` was asked for. Sizes in bytes, 0: as it comes; the devices are ``None`` for a pool on files."""

    name: str
    kind: PoolKind
    data: Device | None = None
    metadata: Device | None = None
    size: int = 0
    metadata_size: int = 0
    block_size: int = 0
    sparse: bool = False
    force: bool = False


class Creation(NamedTuple):
    """The pool to be made, and what the user should know before."""

    pool: Pool
    warnings: tuple[str, ...]


def plan_creation(request: Request, uuid: str, now_ns: int) -> Creation:
    """The pool that a request means. :raise InvalidArgument: it cannot be, or would overwrite something."""
    check_name(request.name)
    if request.kind is PoolKind.FILE:
        return _file_pool(request, uuid, now_ns)
    block = request.block_size or BLOCK_SIZE
    if not LEAST_BLOCK <= block <= MOST_BLOCK or block % LEAST_BLOCK:
        raise InvalidArgument(f"a thin pool's blocks cannot have {block} bytes", "64KiB to 1GiB, a multiple of 64KiB")
    blank = Pool(request.name, uuid, PoolKind.THIN, PoolState.CREATING, now_ns, block_size=block, sparse=request.sparse)
    if request.data is None and request.metadata is None:
        return _thin_on_files(request, blank)
    return _thin_on_devices(request, blank)


def _file_pool(request: Request, uuid: str, now_ns: int) -> Creation:
    if request.data or request.metadata or request.metadata_size or request.block_size:
        raise InvalidArgument(
            "a pool of the type file has neither devices, metadata nor blocks of its own", "give it a --size"
        )
    _check_size("the pool", request.size, LEAST_XFS, "300MiB")
    pool = Pool(request.name, uuid, PoolKind.FILE, PoolState.CREATING, now_ns, size=request.size, sparse=request.sparse)
    return Creation(pool, _sparse_warning(request))


def _thin_on_files(request: Request, blank: Pool) -> Creation:
    _check_size("the pool", request.size, LEAST_THIN, "64MiB")
    metadata = request.metadata_size or metadata_for(request.size, blank.block_size)
    _check_size("its metadata (--metadata-size)", metadata, LEAST_METADATA, "4MiB")
    warning = "a thin pool on files is for trials: every write goes through two file systems; use block devices or logical volumes in earnest"
    pool = blank._replace(size=request.size, metadata_size=metadata)
    return Creation(pool, (warning, *_sparse_warning(request)))


def _thin_on_devices(request: Request, blank: Pool) -> Creation:
    data, metadata = request.data, request.metadata
    if data is None or metadata is None:
        raise InvalidArgument(
            "a thin pool needs two block devices, one for data and one for metadata",
            "make two partitions or logical volumes; --data DEVICE --metadata DEVICE",
        )
    if request.size or request.metadata_size or request.sparse:
        raise InvalidArgument("--size, --metadata-size and --sparse are for pools on files; devices are used whole")
    if data.identity == metadata.identity:
        raise InvalidArgument(f"{data.path} and {metadata.path} are the same device")
    for device, least, text in ((data, LEAST_THIN, "64MiB"), (metadata, LEAST_METADATA, "4MiB")):
        if device.size < least:
            raise InvalidArgument(f"{device.path} has {device.size} bytes, less than the {text} that are needed")
        if device.content and not request.force:
            raise InvalidArgument(
                f"{device.path} holds {device.content}, which would be lost", "--force overwrites it all the same"
            )
    wanted = min(metadata_for(data.size, blank.block_size) // 2, MOST_METADATA)
    few = f"{metadata.path} is small for the metadata of {data.size} bytes in blocks of {blank.block_size}: {wanted} bytes would be enough"
    warnings = (few,) if metadata.size < wanted else ()
    return Creation(blank._replace(data=data.path, metadata=metadata.path), warnings)


def _check_size(what: str, size: int, least: int, text: str) -> None:
    if not least <= size < MOST:
        raise InvalidArgument(
            f"{what} cannot have {size} bytes" if size else f"{what} is given no size", f"at least {text}"
        )


def _sparse_warning(request: Request) -> tuple[str, ...]:
    text = "its files are sparse: when the disk that they are on becomes full, writes in the pool fail, and nothing warns of that"
    return (text,) if request.sparse else ()


def metadata_for(size: int, block: int) -> int:
    """How much metadata a thin pool of this size and unit gets, in bytes: whole MiB."""
    wanted = -(-size // block) * _METADATA_PER_BLOCK
    return min(max(-(-wanted // _MIB) * _MIB, 2 * LEAST_METADATA), MOST_METADATA)


def pool_table(metadata: str, data: str, size: int, block: int, *, pass_discards: bool) -> tuple[Target, ...]:
    """A thin pool's table. Devices as MAJOR:MINOR, sizes in bytes.

    A full pool fails writes at once (``error_if_no_space``) instead of holding them back for a minute, and everybody on it with them: guests are refused before
    that. Discards of files' devices are not passed on, or the files would lose the room that they were given.
    """
    blocks = size // block
    features = ["error_if_no_space", *([] if pass_discards else ["no_discard_passdown"])]
    words = [metadata, data, block // _SECTOR, blocks // 5, len(features), *features]
    return (Target(0, blocks * block, "thin-pool", " ".join(str(word) for word in words)),)


class Growth(NamedTuple):
    """The pool as it shall be; what was said of that."""

    pool: Pool
    changes: tuple[str, ...]


def plan_growth(pool: Pool, size: int, metadata_size: int) -> Growth:
    """A larger pool. On devices it takes what they have by now, and is given no size.

    :raise InvalidArgument: a size that is none for this pool, or a smaller one.
    """
    if not pool.on_files:
        if size or metadata_size:
            raise InvalidArgument(
                f"pool {pool.name!r} is on block devices and takes all that they have",
                "enlarge the devices (lvextend), then grow it without a size",
            )
        return Growth(pool, ("the pool takes what its devices have by now",))
    if metadata_size and pool.kind is PoolKind.FILE:
        raise InvalidArgument(f"pool {pool.name!r} has no metadata of its own to grow")
    if not size and not metadata_size:
        raise InvalidArgument(f"pool {pool.name!r} is on files and is not told how large to become", "--size SIZE")
    changes = [
        _change("data", pool.size, size, MOST),
        _change("metadata", pool.metadata_size, metadata_size, MOST_METADATA + 1),
    ]
    wanted = max(metadata_for(size, pool.block_size) if size and pool.block_size else 0, metadata_size)
    if not metadata_size and wanted > pool.metadata_size:
        metadata_size = wanted
        changes[1] = f"metadata from {pool.metadata_size} to {wanted} bytes, which that much data needs"
    grown = pool._replace(size=size or pool.size, metadata_size=metadata_size or pool.metadata_size)
    return Growth(grown, tuple(change for change in changes if change))


def _change(what: str, old: int, new: int, most: int) -> str:
    if not new:
        return ""
    if not old <= new < most:
        raise InvalidArgument(
            f"the {what} cannot become {new} bytes from {old}", "a pool can only grow" if new < old else ""
        )
    return f"{what} from {old} to {new} bytes"
