"""OCI runtimes run from a sealed copy in memory, renewed when the program changes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unikeel.keeper import sealed
from unikeel.keeper.sealed import SealedPrograms


def _program(path: Path, source: str) -> str:
    shutil.copy(shutil.which(source) or source, path)
    path.chmod(0o755)
    return str(path)


def test_a_runtime_is_copied_once_and_can_be_executed(tmp_path: Path) -> None:
    programs, path = SealedPrograms(), _program(tmp_path / "crun", "true")
    copy = programs.executable(path)
    assert copy.startswith("/proc/self/fd/")
    assert programs.executable(path) == copy
    assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(copy, ["crun"], {}), 0)[1]) == 0
    assert subprocess.run([path], check=False).returncode == 0


def test_the_copy_can_never_be_written(tmp_path: Path) -> None:
    copy = SealedPrograms().executable(_program(tmp_path / "crun", "true"))
    fd = int(copy.rpartition("/")[2])
    wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted
    with open(copy, "r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"x")
    assert not os.get_inheritable(fd)


def test_a_program_that_was_replaced_is_copied_anew(tmp_path: Path) -> None:
    programs, path = SealedPrograms(), _program(tmp_path / "crun", "true")
    programs.executable(path)
    os.replace(_program(tmp_path / "new", "false"), path)
    copy = programs.executable(path)
    assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(copy, ["crun"], {}), 0)[1]) == 1


def test_other_programs_are_executed_themselves(tmp_path: Path) -> None:
    path = _program(tmp_path / "passt", "true")
    assert SealedPrograms().executable(path) == path


def test_a_large_program_is_executed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_MAX", 100)
    path = _program(tmp_path / "runc", "true")
    assert SealedPrograms().executable(path) == path


def test_a_script_is_executed_itself(tmp_path: Path) -> None:
    path = tmp_path / "crun"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    assert SealedPrograms().executable(str(path)) == str(path)


def test_a_program_that_is_not_there_fails_when_it_is_executed(tmp_path: Path) -> None:
    path = str(tmp_path / "crun")
    assert SealedPrograms().executable(path) == path


def test_without_memory_files_the_program_itself_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str, _flags: int) -> int:
        raise PermissionError(errno.EACCES, "vm.memfd_noexec")

    monkeypatch.setattr(os, "memfd_create", refused)
    path = _program(tmp_path / "crun", "true")
    assert SealedPrograms().executable(path) == path
