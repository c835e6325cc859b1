"""The tables themselves, and docs/cli.md, which is made from them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unikeel.cli import commands
from unikeel.cli.options import GLOBAL
from unikeel.cli.reference import reference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: What must not be imported on the way to a monitor's exec, beside what the interpreter's own start brings: together more than all of ours.
HEAVY = {
    "argparse", "asyncio", "base64", "dataclasses", "datetime", "difflib", "hashlib", "importlib", "importlib.metadata", "inspect", "logging", "pathlib",
    "rich", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "tomllib", "typing", "unittest", "warnings",
}  # fmt: skip


def test_the_documentation_is_that_of_the_tables() -> None:
    with open(os.path.join(ROOT, "docs/cli.md"), encoding="utf-8") as file:
        assert file.read() == reference(), "python -m unikeel.cli.reference > docs/cli.md"


@pytest.mark.parametrize("name", [*commands.NAMES, *commands.HIDDEN])
def test_every_command_is_described_by_its_module(name: str) -> None:
    module = commands.load(name)
    command = module.COMMAND
    assert command.name == name
    assert command.summary
    assert not command.summary.endswith(".")
    assert callable(module.run)
    names = [spelling for option in (*command.options, *GLOBAL) for spelling in option.names]
    assert len(names) == len(set(names))
    keys = [option.key for option in (*command.options, *GLOBAL)]
    assert len(keys) == len(set(keys))
    assert all(argument.most == 1 for argument in command.arguments[:-1])
    assert all(option.value or not (option.choices or option.complete) for option in command.options)


def test_every_listing_has_json() -> None:
    for name in (
        "ps",
        "inspect",
        "timeline",
        "image ls",
        "image inspect",
        "boot ls",
        "boot gc",
        "doctor",
        "version",
        "config",
    ):
        assert any(option.key == "json" for option in commands.load(name).COMMAND.options), name


def test_a_start_imports_nothing_heavy() -> None:
    ours = (
        "cli.main, cli.run, cli.start, cli.create, engine.engine, engine.creating, engine.starting, engine.ending, boot.strategies, guests.generic, "
        "guests.linux, images.store, model.image_config, images.users, monitors.qemu, monitors.host, records.writer, sandbox.choosing, sandbox.runtime, "
        "sandbox.root, sandbox.spec, snapshots.file_store, snapshots.qcow2"
    )
    modules = ", ".join(f"unikeel.{name}" for name in ours.split(", "))
    code = f"import sys; before = set(sys.modules); import {modules}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
