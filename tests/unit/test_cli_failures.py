"""From an exception to a sentence and an exit code."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from unikeel import errors
from unikeel.cli.failures import Interrupted, exit_codes, report, say

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (errors.NotFound("no such thing", "look elsewhere"), 66, "unikeel: no such thing (look elsewhere)\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            74,
            "unikeel: /x/y: No space left on device (free some space)\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 77, "unikeel: /x: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 70, "unikeel: /x: No such file"),
        (OSError(errno.EMFILE, "Too many open files"), 74, "unikeel: Too many open files\n"),
        (MemoryError(), 74, "unikeel: there is not enough memory\n"),
        (sqlite3.OperationalError("database or disk is full"), 74, "unikeel: the records of the state root"),
        (sqlite3.DatabaseError("file is not a database"), 70, "unikeel: the records of the state root"),
        (ValueError("what"), 70, "unikeel: internal error: ValueError: what (please report it"),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted(15), 143, ""),
        (Interrupted(1), 129, ""),
    ],
)
def test_every_error_has_a_code_and_a_sentence(
    error: BaseException, code: int, sentence: str, capsys: Captured
) -> None:
    assert report(error, debug=False) == code
    text = capsys.readouterr().err
    assert text.startswith(sentence)
    assert "Traceback" not in text


def test_a_closed_pipe_ends_quietly() -> None:
    child = os.fork()
    if not child:  # it changes descriptor 1, so not in the process of the tests
        os._exit(report(BrokenPipeError(), debug=False))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 141


def test_debug_shows_where(capsys: Captured) -> None:
    with pytest.raises(errors.Internal) as caught:
        raise errors.Internal("what")
    assert report(caught.value, debug=True) == 70
    assert "test_cli_failures.py" in capsys.readouterr().err


def test_a_sentence_is_one_line_without_control_characters(capsys: Captured) -> None:
    say("a\nb\x1b[31mc")
    assert capsys.readouterr().err == "unikeel: a b?[31mc\n"


def test_the_documentation_has_every_code_of_the_errors_table() -> None:
    codes = dict(exit_codes())
    assert {row.exit for row in errors.TABLE.values()} <= set(codes)
    assert {0, 125, 130, 141, 255} <= set(codes)
    assert all(codes.values())
