"""The four strategies of one process, each built when it is first needed: a start imports only what serves it."""

from __future__ import annotations

import os
from collections.abc import Callable

from unikeel.boot.cache import Cache
from unikeel.boot.contract import Choice, Reach, Strategy, ViewHolder
from unikeel.boot.ledger import Ledger
from unikeel.boot.objects import ObjectStore
from unikeel.lean import TYPE_CHECKING
from unikeel.records.intents import Intents
from unikeel.records.owners import boot_id

if TYPE_CHECKING:
    from unikeel.boot.copies import Copies
    from unikeel.boot.mounted import Mounter
    from unikeel.boot.shared import SharedViews
    from unikeel.boot.view import ContainerViews


class Strategies:
    """Builds and remembers. :param seconds: how long a fill, a mount or a copy may take."""

    def __init__(
        self,
        directory: str,
        ledger: Ledger,
        intents: Intents,
        holder: ViewHolder,
        reach: Reach,
        store: ObjectStore,
        *,
        cache_size: int,
        seconds: float,
        tmpfs_directory: str,
        is_dead: Callable[[str], bool],
        owner: str,
        linger: float,
    ) -> None:
        self._linger = linger
        self._ledger = ledger
        self._intents = intents
        self._holder = holder
        self._reach = reach
        self._tmpfs_directory = tmpfs_directory
        self._seconds = seconds
        self._boot = boot_id()
        self.locks = os.path.join(directory, "locks")
        os.makedirs(self.locks, mode=0o700, exist_ok=True)
        self.cache = Cache(
            store,
            ledger,
            reach,
            self.mounter,
            locks=self.locks,
            size=cache_size,
            seconds=seconds,
            boot=self._boot,
            owner=owner,
            is_dead=is_dead,
        )
        self._shared: SharedViews | None = None
        self._views: ContainerViews | None = None
        self._copies: Copies | None = None

    def of(self, choice: Choice) -> Strategy:
        """The strategy of a choice (not ``auto``)."""
        if choice is Choice.SHARED_VIEW:
            return self.shared
        if choice is Choice.VIEW:
            return self.views
        return self.copies if choice is Choice.COPY else self.cache

    @property
    def shared(self) -> SharedViews:
        """The strategy ``shared-view``."""
        if self._shared is None:
            from unikeel.boot.shared import SharedViews

            self._shared = SharedViews(
                self._holder,
                self._ledger,
                self._intents,
                self._reach,
                self.mounter(),
                locks=self.locks,
                seconds=self._seconds,
                linger=self._linger,
            )
        return self._shared

    @property
    def views(self) -> ContainerViews:
        """The strategy ``view``."""
        if self._views is None:
            from unikeel.boot.view import ContainerViews

            self._views = ContainerViews(
                self._reach, self._ledger, self._intents, self.mounter(), locks=self.locks, seconds=self._seconds
            )
        return self._views

    @property
    def copies(self) -> Copies:
        """The strategy ``copy``."""
        if self._copies is None:
            from unikeel.boot.copies import Copies

            self._copies = Copies(
                self._tmpfs_directory,
                self._ledger,
                self._intents,
                self._reach,
                self.mounter(),
                locks=self.locks,
                seconds=self._seconds,
                boot=self._boot,
            )
        return self._copies

    def mounter(self) -> Mounter:
        """What mounts, for whoever needs it."""
        from unikeel.boot.mounted import Mounter

        return Mounter(self.locks)

    def close(self) -> None:
        """Let go of this process's descriptors, when what was read is recorded with its digest."""
        self.cache.settle()
        if self._shared is not None:
            self._shared.close()
