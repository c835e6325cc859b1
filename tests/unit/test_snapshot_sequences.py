"""Any sequence of calls on the file store, in processes that may be killed at any step, has the same outcome as on the model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from snapshot_ops import KINDS, LABELS, LAST_POINT, NAMES, PARENTS, SIZES, Op, run
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.file_store import FileStore

_SIZE = 1 << 24

_OPS = st.builds(
    Op,
    st.sampled_from(KINDS),
    st.sampled_from(NAMES),
    st.sampled_from(PARENTS),
    st.sampled_from(LABELS),
    st.sampled_from(SIZES),
    st.one_of(st.none(), st.none(), st.integers(0, LAST_POINT)),
)


class _Process:
    def __init__(self, root: Path) -> None:
        owners = root / "owners"
        owners.mkdir(exist_ok=True)
        self.owner = Owner(str(owners))
        self.database = Database(str(root / "records.db"))
        self.store = FileStore(
            str(root / "images"),
            self.database,
            consumer="test",
            owner=self.owner.token,
            is_dead=self.owner.is_dead,
            empty_size=_SIZE,
        )

    def close(self) -> None:
        self.store.close()
        self.database.close()
        self.owner.close()


@settings(max_examples=15, deadline=None)
@given(st.lists(_OPS, min_size=8, max_size=25))
def test_any_sequence_with_any_kill(ops: list[Op]) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        run(lambda: _Process(directory), ops, _SIZE)
    finally:
        shutil.rmtree(directory)
