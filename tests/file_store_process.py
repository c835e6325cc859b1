"""One process's file store, with an owner of its own; and the sequences of calls that such stores are tried with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from snapshot_ops import KINDS, LABELS, LAST_POINT, NAMES, PARENTS, SIZES, Op
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.file_store import FileStore

#: Of an empty snapshot's disk, in bytes.
EMPTY: Final = 1 << 24

OPS = st.builds(
    Op,
    st.sampled_from(KINDS),
    st.sampled_from(NAMES),
    st.sampled_from(PARENTS),
    st.sampled_from(LABELS),
    st.sampled_from(SIZES),
    st.one_of(st.none(), st.none(), st.integers(0, LAST_POINT)),
)


class FileStoreProcess:
    """What a process has: an owner, the record store, the store."""

    def __init__(self, root: Path, consumer: str = "test") -> None:
        owners = root / "owners"
        owners.mkdir(exist_ok=True)
        self.owner = Owner(str(owners))
        self.database = Database(str(root / "records.db"))
        self.store = FileStore(
            str(root / "images"),
            self.database,
            consumer=consumer,
            owner=self.owner.token,
            is_dead=self.owner.is_dead,
            empty_size=EMPTY,
        )

    def close(self) -> None:
        """As an orderly end."""
        self.store.close()
        self.database.close()
        self.owner.close()
