"""Every class of errors has a row in the one table that maps it to the outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unikeel import errors


def classes(cls: type[errors.UnikeelError]) -> Iterator[type[errors.UnikeelError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from classes(sub)


@pytest.mark.parametrize("cls", list(classes(errors.UnikeelError)))
def test_every_class_of_the_tree_has_a_row(cls: type[errors.UnikeelError]) -> None:
    # Classes of other modules may refine one of the tree; then the nearest row counts.
    own = cls.__module__ == errors.__name__
    assert cls in errors.TABLE or not own
    assert errors.mapping(cls.__new__(cls)).exit in range(2, 126)


def test_rpc_codes_are_those_of_grpc_and_never_ok() -> None:
    assert all(1 <= row.rpc <= 16 for row in errors.TABLE.values())


def test_a_foreign_exception_counts_as_our_own_mistake() -> None:
    assert errors.mapping(KeyError("x")) == errors.TABLE[errors.Internal]


def test_the_hint_is_shown_behind_the_message() -> None:
    assert str(errors.BadContent("what", "do this")) == "what (do this)"
    assert str(errors.BadContent("what")) == "what"
