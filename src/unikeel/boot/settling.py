"""Giving cache objects their digest after they were handed over: hashed, on disk, renamed, recorded, by a thread that comes and goes."""

from __future__ import annotations

import os
import threading
from collections import deque

from unikeel.boot.ledger import Ledger
from unikeel.boot.objects import ObjectStore, digest_of
from unikeel.errors import UnikeelError
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint

#: Seconds that a start gets for itself before its disk and processor are used for this, unless somebody waits for it.
_PAUSE: Final = 0.25


class Settler:
    """What this process has read and not hashed yet. :param boot: the host's boot id."""

    def __init__(self, store: ObjectStore, ledger: Ledger, boot: str) -> None:
        self._store = store
        self._ledger = ledger
        self._boot = boot
        self._changed = threading.Condition()
        self._names: deque[str] = deque()
        self._running = False
        self._hurry = False

    def add(self, name: str) -> None:
        """Hash the object of this provisional name, soon."""
        with self._changed:
            self._names.append(name)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="boot digests", daemon=True).start()

    def wait(self, seconds: float | None) -> bool:
        """Until nothing is left to do; whether that is so."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._running, seconds)
            finally:
                self._hurry = False

    def _run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurry, _PAUSE)
        while True:
            with self._changed:
                if not self._names:
                    self._running = False
                    self._changed.notify_all()
                    return
                name = self._names.popleft()
            try:
                self._settle(name)
            except (UnikeelError, OSError):
                continue  # it serves as it is, as long as this process lives; the next one reads it again

    def _settle(self, name: str) -> None:
        path = self._store.path(name)
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
            digest = digest_of(fd.fileno())
            os.fsync(fd.fileno())
        failpoint("boot.cache.synced")
        with self._ledger.database.write() as cursor:
            if not self._ledger.settle_in(cursor, name, digest, self._boot):
                self._store.discard(name)  # it was pushed out meanwhile
                return
            self._store.publish(path, digest)
            failpoint("boot.cache.published")
        failpoint("boot.cache.settled")
