"""Several processes that open a new record store at the same time."""

from __future__ import annotations

import multiprocessing

from unikeel.errors import UnikeelError
from unikeel.records.database import Database

_PROCESSES = 12
_STORES = 4


def _open_and_write(path: str) -> str:
    """What went wrong, or an empty string."""
    try:
        database = Database(path)
        database.migrate("test", ("CREATE TABLE written (pid INTEGER)",))
        database.execute("INSERT INTO written VALUES (1)")
        database.close()
    except UnikeelError as error:
        return str(error)
    return ""


def test_all_of_them_can(tmp_path: object) -> None:
    with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
        for number in range(_STORES):
            path = f"{tmp_path}/{number}.db"
            assert pool.map(_open_and_write, [path] * _PROCESSES, chunksize=1) == [""] * _PROCESSES
            database = Database(path)
            assert database.query("SELECT COUNT(*) FROM written") == [(_PROCESSES,)]
            database.close()
