"""Coroutines begun at once: what ends without waiting costs an event loop nothing more, and what asks somebody has asked before its caller goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begun(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has already run as far as it goes without waiting, where Python can do that (3.12); else one that will run soon."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return loop.create_task(coroutine)
