"""What stands for parts of the standard library has everything that is used of it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import unikeel
from unikeel import lean

_SOURCE = os.path.dirname(os.path.abspath(unikeel.__file__))
_CORES = ("signal", "socket", "sqlite3")


def _uses(core: str) -> Iterator[tuple[str, str]]:
    """Each module that takes a core from us, and each attribute that it asks it for."""
    for directory, _, names in os.walk(_SOURCE):
        for name in names:
            if not name.endswith(".py"):
                continue
            path = os.path.join(directory, name)
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read())
            if any(
                isinstance(node, ast.ImportFrom)
                and node.module == "unikeel.lean"
                and core in (alias.name for alias in node.names)
                for node in ast.walk(tree)
            ):
                for node in ast.walk(tree):
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == core:
                        yield os.path.relpath(path, _SOURCE), node.attr


@pytest.mark.parametrize("core", _CORES)
def test_a_core_has_all_that_is_asked_of_it(core: str) -> None:
    uses = set(_uses(core))
    assert uses
    assert {(where, name) for where, name in uses if not hasattr(getattr(lean, core), name)} == set()


def test_a_digest_is_the_usual_one() -> None:
    assert lean.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")


def test_an_unknown_name_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        lean.nothing  # type: ignore[attr-defined] # noqa: B018 - it is what is tried


def _fresh() -> ModuleType:
    spec = importlib.util.find_spec("unikeel.lean")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_python_without_the_cores_gives_the_whole_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import socket

    for core in ("_sha256", "_sha2", "_socket"):
        monkeypatch.setitem(sys.modules, core, None)  # what import takes for "there is none"
    module = _fresh()
    assert module.sha256 is hashlib.sha256
    assert module.socket is socket


def test_contracts_and_generics_need_nothing_at_run_time() -> None:
    module = _fresh()
    variable = module.TypeVar("variable", bound=int)

    class Box(module.Generic[variable]):  # type: ignore[misc, name-defined] # what a Python without typing sees
        pass

    class Contract(module.Protocol):  # type: ignore[misc, name-defined]
        pass

    class Kept(Contract):
        pass

    assert isinstance(Box(), Box)
    assert isinstance(Kept(), Contract)
