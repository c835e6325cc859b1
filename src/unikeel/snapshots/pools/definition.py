"""What a pool is made of, as a value, and its form in a file."""

from __future__ import annotations

import enum
import json
import re
import uuid

from unikeel.errors import BadContent, InvalidArgument
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.values import NamedTuple

#: The longest definition that is read, in bytes.
LIMIT: Final = 64 << 10
#: The largest size of anything, in bytes.
MOST: Final = 1 << 60

#: Names go into device-mapper's, which end in a number of at most eight digits.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PATH_LIMIT: Final = 4096


class PoolKind(enum.StrEnum):
    """How a pool keeps snapshots."""

    THIN = "thin"  #: device-mapper's thin provisioning
    FILE = "file"  #: XFS in a file, whose files share blocks


class PoolState(enum.StrEnum):
    """What is being done to a pool. In any state but ``ready`` a kill leaves work for :mod:`.settling`."""

    CREATING = "creating"
    READY = "ready"
    DESTROYING = "destroying"


class Pool(NamedTuple):
    """A pool. Sizes in bytes.

    :ivar uuid: 32 hexadecimal digits, also in the pool itself, so that the two can only be mistaken on purpose.
    :ivar data: a block device, or empty: a file of ours in the pool's directory. :ivar metadata: likewise; empty for the kind ``file``, too.
    :ivar size: what the data file shall have; 0 for a device. :ivar metadata_size: likewise.
    :ivar block_size: a thin pool's unit; 0 for the kind ``file``. :ivar sparse: whether the files get their room only when it is used.
    """

    name: str
    uuid: str
    kind: PoolKind
    state: PoolState
    created_ns: int
    data: str = ""
    metadata: str = ""
    size: int = 0
    metadata_size: int = 0
    block_size: int = 0
    sparse: bool = False

    @property
    def on_files(self) -> bool:
        """Whether it lies in files of ours, by loop devices."""
        return not self.data

    @property
    def store(self) -> str:
        """Under which its snapshots are recorded."""
        return f"pool:{self.name}"

    @property
    def device_name(self) -> str:
        """What device-mapper calls it (kind ``thin``)."""
        return f"unikeel-{self.name}"

    @property
    def device_uuid(self) -> str:
        """Device-mapper's own identifier of it (kind ``thin``)."""
        return f"UNIKEEL-{self.uuid}-pool"


def check_name(name: str) -> None:
    """:raise InvalidArgument: a pool cannot be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"a pool cannot be called {quote(name)}",
            "1 to 32 lower-case letters, digits, - and _, the first a letter or digit",
        )


def new_uuid() -> str:
    """A random identifier, as 32 hexadecimal digits."""
    return uuid.uuid4().hex


def encode(pool: Pool) -> bytes:
    """As the definition's file has it."""
    return (json.dumps({"version": 1, **pool._asdict()}, indent=2) + "\n").encode()


def decode(data: bytes, source: str) -> Pool:
    """The inverse of :func:`encode`, for whatever a file may hold. :raise BadContent: it is no definition; ``source`` names it."""
    try:
        if len(data) > LIMIT:
            raise ValueError("it is too long")
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("version", None) != 1:
            raise ValueError("it is none of this version")
        return _checked(Pool(**values))
    except (ValueError, TypeError, RecursionError, InvalidArgument) as error:
        raise BadContent(f"{source} is not the definition of a pool: {str(error)[:200]}") from None


def _checked(pool: Pool) -> Pool:
    texts = (pool.name, pool.uuid, pool.kind, pool.state, pool.data, pool.metadata)
    if not all(isinstance(text, str) and len(text) < _PATH_LIMIT and "\0" not in text for text in texts):
        raise ValueError("a text in it is none")
    numbers = (pool.created_ns, pool.size, pool.metadata_size, pool.block_size)
    if not all(type(number) is int and 0 <= number < MOST << 8 for number in numbers) or type(pool.sparse) is not bool:
        raise ValueError("a number in it is none")
    check_name(pool.name)
    if uuid.UUID(pool.uuid).hex != pool.uuid:
        raise ValueError("its uuid is not written as it should be")
    if any(path and not path.startswith("/") for path in (pool.data, pool.metadata)):
        raise ValueError("a path in it is not absolute")
    return pool._replace(kind=PoolKind(pool.kind), state=PoolState(pool.state))
