"""A store that is opened when it is first asked something, and put in order before it answers."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from unikeel.errors import UnikeelError
from unikeel.lean import Final
from unikeel.snapshots.contract import SnapshotStore

_LOG: Final = logging.getLogger("unikeel.snapshots")


class Opening:
    """Opens a store once, in whichever worker thread asks first; a store that cannot be opened is tried again with each call.

    :param open_it: opens it; what it raises is what the call is answered. :param name: of the store, for the log.
    """

    def __init__(self, open_it: Callable[[], SnapshotStore], name: str) -> None:
        self._open_it = open_it
        self._name = name
        self._turn = threading.Lock()
        self._store: SnapshotStore | None = None
        self._closed = False

    @property
    def opened(self) -> bool:
        """Whether it is open now."""
        return self._store is not None

    def __call__(self) -> SnapshotStore:
        """The store; half-made snapshots of processes that are dead are undone. :raise UnikeelError: it cannot be opened."""
        store = self._store
        if store is not None:
            return store
        with self._turn:
            if self._store is None:
                self._store = self._opened()
            return self._store

    def _opened(self) -> SnapshotStore:
        store = self._open_it()
        try:
            found = store.reconcile()
        except BaseException:
            with contextlib.suppress(UnikeelError):
                store.close()
            raise
        for name in found.undone:
            _LOG.info("took back the half-made snapshot %r of the store %s", name, self._name)
        for name in found.faulty:
            _LOG.error("the content of snapshot %r is missing from the store %s", name, self._name)
        return store

    def close(self) -> None:
        """Close the store if it is open."""
        with self._turn:
            store, self._store = self._store, None
            if store is not None:
                store.close()
