"""Named tuples of our own behave as those of the standard library, and are compiled late."""

from __future__ import annotations

import copy
import pickle
import threading
import typing
from collections.abc import Callable

import pytest

from unikeel.values import NamedTuple


class Ours(NamedTuple):
    """Documented."""

    number: int
    text: str = "x"
    items: tuple[str, ...] = ()

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Theirs(typing.NamedTuple):
    """Documented."""

    number: int
    text: str = "x"
    items: tuple[str, ...] = ()

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Derived(Ours):
    """A usual class below a named tuple."""

    @property
    def double(self) -> int:
        """More than twice the number."""
        return super().double + 1


_KINDS: tuple[type[Ours | Theirs], ...] = (Ours, Theirs)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_value_is_a_tuple_with_names(kind: type[Ours | Theirs]) -> None:
    value = kind(3, text="y")
    assert (value.number, value.text, value.items, value.double) == (3, "y", (), 6)
    assert repr(value) == f"{kind.__name__}(number=3, text='y', items=())"
    assert value._replace(number=4) == kind(4, "y")
    assert type(value._replace(number=4)) is kind
    assert value._asdict() == {"number": 3, "text": "y", "items": ()}
    assert kind._make([1, "z", ("a",)]) == kind(1, "z", ("a",))
    assert kind._fields == kind.__match_args__ == ("number", "text", "items")
    assert kind._field_defaults == {"text": "x", "items": ()}
    assert typing.get_type_hints(kind) == {"number": int, "text": str, "items": tuple[str, ...]}
    assert hash(value) == hash((3, "y", ()))
    assert tuple(value) == (3, "y", ())
    assert not hasattr(value, "__dict__")
    assert kind.__doc__ == "Documented."
    match value:
        case Ours(number, text) | Theirs(number, text):
            assert (number, text) == (3, "y")
        case _:
            pytest.fail("a value of its class matches it")


@pytest.mark.parametrize("kind", _KINDS)
def test_values_survive_being_copied_and_pickled(kind: type[Ours | Theirs]) -> None:
    value = kind(3, items=("a", "b"))
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
        assert type(other) is kind


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda kind: kind(), TypeError),
        (lambda kind: kind(1, "y", (), "more"), TypeError),
        (lambda kind: kind(1, other=2), TypeError),
        (lambda kind: kind(1, number=2), TypeError),
        (lambda kind: kind._make([1]), TypeError),
        (lambda kind: kind._make([1, "y", (), 4]), TypeError),
        (
            lambda kind: kind(1)._replace(other=2),
            ValueError if not hasattr(copy, "replace") else (ValueError, TypeError),
        ),
        (lambda kind: setattr(kind(1), "number", 2), AttributeError),
        (lambda kind: setattr(kind(1), "other", 2), AttributeError),
    ],
)
def test_misuse_is_an_error(
    kind: type[Ours | Theirs], wrong: Callable[[object], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        wrong(kind)


def test_what_derives_from_a_named_tuple_is_a_usual_class() -> None:
    assert type(Ours) is type(Derived) is type
    assert Derived(2).double == 5
    assert type(Derived(2, "z")._replace(number=1)) is Derived


def test_the_constructor_is_compiled_for_the_first_value() -> None:
    class Late(NamedTuple):
        """Of nobody yet."""

        number: int

    assert "__new__" not in Late.__dict__
    assert Late(1).number == 1
    assert "__new__" in Late.__dict__


def test_many_threads_may_make_the_first_value() -> None:
    class Late(NamedTuple):
        """Of nobody yet."""

        number: int

    made: list[Late] = []
    gate = threading.Barrier(8)

    def make(number: int) -> None:
        gate.wait(60)
        made.append(Late(number))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [(number,) for number in range(8)]


@pytest.mark.parametrize(
    ("annotations", "values", "what"),
    [
        ({}, {}, "has no fields"),
        ({"_hidden": "int"}, {}, "_hidden"),
        ({"class": "int"}, {}, "class"),
        ({"a": "int", "b": "int"}, {"a": 1}, "without a default"),
    ],
)
def test_a_definition_that_cannot_be_is_an_error(
    annotations: dict[str, str], values: dict[str, object], what: str
) -> None:
    making = typing.cast("Callable[..., object]", type(NamedTuple))
    with pytest.raises(TypeError, match=what):
        making("Wrong", (NamedTuple,), {"__annotations__": annotations, **values})
