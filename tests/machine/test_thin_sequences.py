"""Any sequence of calls on the store of thin devices, in processes that may be killed at any step, has the same outcome as on the model."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshot_ops import KINDS, random_op, run
from thin_world import SMALL, Pool, Process, made_pool, remove_all

_LONG = os.environ.get("UNIKEEL_LONG") == "1"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with made_pool(tmp_path_factory.mktemp("sequences") / "pool") as pool:
        yield pool


@pytest.mark.parametrize("seed", range(60 if _LONG else 3))
def test_any_sequence_with_any_kill(pool: Pool, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root: Path = tmp_path_factory.getbasetemp() / "records"
    choose = random.Random(seed)
    ops = [random_op(choose, (*KINDS, "spare")) for _ in range(40 if _LONG else 15)]
    run(lambda: Process(root, pool.ref, f"seed {seed}"), ops, SMALL)
    process = Process(root, pool.ref, f"seed {seed}")
    remove_all(process.store)
    process.store._spares.give_back()
    process.store.cleanup()
    assert process.store._devices.numbers() == {0, *pool.devices()}  # but for the empty file system
    process.close()
