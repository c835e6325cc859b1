"""What a start takes of the standard library, without what those modules bring along.

To a reader and to a type checker these are :mod:`typing`, :mod:`socket` and the others themselves. At run time a command that starts a guest gets their
compiled cores, and of :mod:`typing`, whose names it only writes into annotations, stand-ins: a quarter of all imports of a start were
enumerations of socket options, adapters for dates, OpenSSL for one small digest, and generics (decision 25 has the figures). A Python that calls a core by
another name gets the whole module.

A compiled core lacks what its module adds in Python: here, sockets are no context managers and cannot accept, signals and address families are plain
numbers. ``tests/unit/test_lean.py`` looks through everything that is used of them. Who needs more imports the module itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    import sqlite3
    from hashlib import sha256
    from threading import Lock, RLock
    from typing import Any, ClassVar, Final, Generic, NoReturn, Protocol, Self, TypeAlias, TypeVar
else:
    from _thread import RLock
    from _thread import allocate_lock as Lock  # noqa: N812 - what threading calls it

    Any = ClassVar = Final = NoReturn = Self = TypeAlias = object

    class Generic:
        """Can be written with type parameters."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    class Protocol(Generic):
        """A contract, to the type checker."""

        __slots__ = ()

    def TypeVar(_name: str, *_bounds: object, **_options: object) -> type:  # noqa: N802 - its name
        return object

    #: A name, the compiled core that has it, the module that has it in any case; where what is wanted is in it, or nothing for the module as a whole.
    _CORES = {
        "sha256": (("_sha256", "_sha2"), "hashlib", "sha256"),
        "signal": (("_signal",), "signal", ""),
        "socket": (("_socket",), "socket", ""),
        "sqlite3": (("_sqlite3",), "sqlite3", ""),
    }

    def __getattr__(name: str) -> object:
        if name not in _CORES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        cores, whole, part = _CORES[name]
        for place in (*cores, whole):
            try:
                found = __import__(place)
            except ModuleNotFoundError:
                continue
            found = globals()[name] = getattr(found, part) if part else found
            return found
        raise ModuleNotFoundError(f"this Python has no module {whole!r}")


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "ClassVar",
    "Final",
    "Generic",
    "Lock",
    "NoReturn",
    "Protocol",
    "RLock",
    "Self",
    "TypeAlias",
    "TypeVar",
    "sha256",
    "signal",
    "socket",
    "sqlite3",
]
