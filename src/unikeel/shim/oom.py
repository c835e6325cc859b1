"""Notices when the memory limit of a task's cgroup has killed something, without looking again and again.

cgroup2 marks ``memory.events`` as urgent to read (EPOLLPRI) whenever it changes; the first version writes to an eventfd. Both become readable
descriptors of the event loop, one for all tasks with cgroup2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable

from unikeel.engine.tasks import Task
from unikeel.sandbox.cgroups import UNIFIED


class OomWatch:
    """Watches the cgroups of tasks. ``told`` is called with a task's name of ours whenever its limit may have killed something."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._files: dict[str, tuple[int, ...]] = {}
        self._names: dict[int, str] = {}
        self._epoll: select.epoll | None = None

    def add(self, task: Task) -> None:
        """Watch a task's cgroup; one that cannot be watched is left."""
        self.remove(task.ident)
        with contextlib.suppress(OSError):
            if UNIFIED in task.cgroups:
                self._add_second(task.ident, task.cgroups[UNIFIED])
            elif "memory" in task.cgroups:
                self._add_first(task.ident, task.cgroups["memory"])

    def _add_second(self, ident: str, directory: str) -> None:
        fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._files[ident] = (fd,)
        self._names[fd] = ident
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        os.read(fd, 4096)
        self._epoll.register(fd, select.EPOLLPRI | select.EPOLLET)

    def _ready(self) -> None:
        if self._epoll is None:
            return
        for fd, _ in self._epoll.poll(0):
            with contextlib.suppress(OSError):
                os.pread(fd, 4096, 0)
            if fd in self._names:
                self._told(self._names[fd])

    def _add_first(self, ident: str, directory: str) -> None:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        event = -1
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            wish = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(wish, f"{event} {control}".encode("ascii"))
            finally:
                os.close(wish)
        except OSError:
            os.close(control)
            if event >= 0:
                os.close(event)
            raise
        self._files[ident] = (event, control)
        asyncio.get_running_loop().add_reader(event, self._fired, ident, event)

    def _fired(self, ident: str, event: int) -> None:
        """It also fires, once, when the cgroup is removed."""
        with contextlib.suppress(OSError):
            os.eventfd_read(event)
        self._told(ident)

    def remove(self, ident: str) -> None:
        """Watch it no more."""
        for fd in self._files.pop(ident, ()):
            self._names.pop(fd, None)
            asyncio.get_running_loop().remove_reader(fd)
            if self._epoll is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
            os.close(fd)

    def close(self) -> None:
        """Watch nothing any more."""
        for ident in list(self._files):
            self.remove(ident)
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
