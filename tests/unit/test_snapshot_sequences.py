"""Any sequence of calls on the file store, in processes that may be killed at any step, has the same outcome as on the model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from file_store_process import EMPTY, OPS, FileStoreProcess
from snapshot_ops import Op, run


@settings(max_examples=15, deadline=None)
@given(st.lists(OPS, min_size=8, max_size=25))
def test_any_sequence_with_any_kill(ops: list[Op]) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        run(lambda: FileStoreProcess(directory), ops, EMPTY)
    finally:
        shutil.rmtree(directory)
