"""Named tuples that cost little until they are used.

To a reader and to a type checker, :class:`NamedTuple` is the one of :mod:`typing`, and at run time its classes behave the same. What differs is when the
work is done. The standard library compiles a constructor for each class, and each annotation that is a string, when the class is made; a command that
starts a guest imports some eighty such classes and makes values of half of them. Here a class costs the making of a class, and the constructor is
compiled for the first value (decision 3 has the figures).

Only what :mod:`unikeel` defines uses this, always under ``from __future__ import annotations``; the keeper keeps to the standard library.
"""

from __future__ import annotations

from collections import _tuplegetter as _field  # type: ignore[attr-defined]  # it is what the named tuples of the standard library are made of
from collections.abc import Callable, Iterable
from keyword import iskeyword

from unikeel.lean import TYPE_CHECKING, Any, ClassVar, Self


class _Value(tuple[Any, ...]):
    """What all named tuples share."""

    __slots__ = ()

    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]]
        _field_defaults: ClassVar[dict[str, object]]

    def __new__(cls, /, *values: object, **named: object) -> Self:
        """The first value of a class: from now on the class has a constructor of its own."""
        owner = next(kind for kind in cls.__mro__ if "_fields" in kind.__dict__)
        constructor = _constructor(owner)
        type.__setattr__(owner, "__new__", constructor)
        made: Self = constructor(cls, *values, **named)
        return made

    @classmethod
    def _make(cls, values: Iterable[object]) -> Self:
        """A value of as many as there are fields. Raises :class:`TypeError` for more or fewer."""
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
        return made

    def _replace(self, /, **named: object) -> Self:
        """The same value, some fields excepted. Raises :class:`ValueError` for a name that is no field."""
        made = self._make(map(named.pop, self._fields, self))
        if named:
            raise ValueError(f"{type(self).__name__} has no field {', '.join(named)}")
        return made

    def _asdict(self) -> dict[str, object]:
        """The fields by name, in order."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({fields})"

    def __getnewargs__(self) -> tuple[object, ...]:
        return tuple(self)


def _constructor(owner: type[_Value]) -> Callable[..., Any]:
    """A function of the class and of all fields, compiled, since calling it is what costs while the program runs."""
    fields = "".join(f"{name}, " for name in owner._fields)
    made: Any = eval(  # noqa: S307 - of names that Python's own grammar has let through
        f"lambda _cls, {fields}: _new(_cls, ({fields}))", {"_new": tuple.__new__, "__name__": owner.__module__}
    )
    made.__defaults__ = tuple(owner._field_defaults.values())
    made.__name__ = "__new__"
    made.__qualname__ = f"{owner.__qualname__}.__new__"
    return made  # type: ignore[no-any-return]


class _Defining(type):
    """Makes the classes that are defined below :class:`NamedTuple`; of the usual metaclass, so that what derives from them is a usual class."""

    def __new__(cls, name: str, _bases: tuple[type, ...], body: dict[str, object]) -> type:
        annotations = body.get("__annotations__")
        fields = tuple(annotations) if isinstance(annotations, dict) else ()
        wrong = [field for field in fields if field.startswith("_") or iskeyword(field)]
        defaults = {field: body[field] for field in fields if field in body}
        if wrong or not fields:
            raise TypeError(f"{name}: no field can be called {wrong[0]}" if wrong else f"{name} has no fields")
        if fields[len(fields) - len(defaults) :] != tuple(defaults):
            raise TypeError(f"{name}: a field without a default follows one with a default")
        body.update((field, _field(index, "")) for index, field in enumerate(fields))
        body.update(__slots__=(), _fields=fields, _field_defaults=defaults, __match_args__=fields)
        return type.__new__(type, name, (_Value,), body)


if TYPE_CHECKING:
    from typing import NamedTuple
else:
    NamedTuple = type.__new__(_Defining, "NamedTuple", (), {})

__all__ = ["NamedTuple"]
