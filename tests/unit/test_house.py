"""The house of the design: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator

import pytest

import unikeel

_SOURCE = os.path.dirname(os.path.abspath(unikeel.__file__))
_LINES = 600
_FUNCTION_LINES = 60
#: Front ends: nobody imports them. ``bench`` and ``doctor`` look at everything.
_FRONT_ENDS = ("cli",)
#: These import nobody of ours but the errors, the named tuples and themselves.
_FOUNDATIONS = ("model", "kernel")
#: These may start processes or issue system calls by themselves, beside ``kernel``.
_CTYPES = ("kernel", "keeper")


@functools.cache
def _modules() -> tuple[tuple[str, ast.Module, str], ...]:
    """Every module of the package, parsed once for all tests."""
    return tuple(_parsed())


def _parsed() -> Iterator[tuple[str, ast.Module, str]]:
    for directory, _, names in os.walk(_SOURCE):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                yield os.path.relpath(path, _SOURCE), ast.parse(text), text


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", _FOUNDATIONS)
def test_foundations_import_nobody_of_ours(package: str) -> None:
    allowed = ("unikeel.errors", "unikeel.lean", "unikeel.values", f"unikeel.{package}")
    found = [
        (name, wanted)
        for name, tree, _ in _modules()
        if name.startswith(package + os.sep)
        for wanted in _imports(tree)
        if wanted.startswith("unikeel.") and not wanted.startswith(allowed)
    ]
    assert found == []


def test_nobody_imports_a_front_end() -> None:
    found = [
        (name, wanted)
        for name, tree, _ in _modules()
        if not name.startswith(_FRONT_ENDS)
        for wanted in _imports(tree)
        if wanted.startswith(tuple(f"unikeel.{front}" for front in _FRONT_ENDS))
    ]
    assert found == []


def test_the_keeper_s_process_imports_only_the_standard_library_and_itself() -> None:
    outside = {"client.py", "connection.py", "starter.py", "__init__.py"}
    found = [
        (name, wanted)
        for name, tree, _ in _modules()
        if name.startswith("keeper" + os.sep) and os.path.basename(name) not in outside
        for wanted in _imports(tree)
        if wanted.startswith("unikeel.") and not wanted.startswith(("unikeel.keeper", "unikeel.lean"))
    ]
    assert found == []


def test_named_tuples_are_those_that_are_compiled_late() -> None:
    found = [
        name
        for name, tree, _ in _modules()
        if "typing.NamedTuple" in _imports(tree) and not name.startswith(("keeper" + os.sep, "values.py", "lean.py"))
    ]
    assert found == []


def test_system_calls_go_through_one_door() -> None:
    found = [name for name, tree, _ in _modules() if "ctypes" in _imports(tree) and not name.startswith(_CTYPES)]
    assert found == []


def test_rooms_are_not_too_large() -> None:
    modules = [(name, text.count("\n")) for name, _, text in _modules() if text.count("\n") > _LINES]
    functions = [
        (name, node.name)
        for name, tree, _ in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= _FUNCTION_LINES
    ]
    assert (modules, functions) == ([], [])


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree, text in _modules() if text.strip() and not ast.get_docstring(tree)] == []


def test_what_the_package_names_is_there_and_documented() -> None:
    for name in unikeel.__all__:
        found = getattr(unikeel, name)
        assert name == "__version__" or found.__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        unikeel.nonsense  # noqa: B018 - looking is the test
