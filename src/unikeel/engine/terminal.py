"""What the foreground changes of its process, and sets back: how signals are taken, and the terminal's mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.lean import TYPE_CHECKING, Final, signal

if TYPE_CHECKING:
    from types import FrameType

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals() -> Iterator[int]:
    """The reading end of a pipe that gets a byte for each signal that wants the end."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def note(_number: int, _frame: FrameType | None) -> None:
        try:
            os.write(write, b"!")
        except BlockingIOError:
            return

    before = [(number, signal.signal(number, note)) for number in _ENDING]
    try:
        yield read
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


@contextmanager
def by_character(fd: int) -> Iterator[None]:
    """If ``fd`` is a terminal and we are in its foreground: by character and without echo, within this block."""
    try:
        ours = os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        ours = False
    if not ours:
        yield
        return
    import termios

    def set_mode() -> None:
        mode = list(termios.tcgetattr(fd))
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)

    saved = termios.tcgetattr(fd)
    before = signal.signal(signal.SIGCONT, lambda _number, _frame: set_mode())
    try:
        set_mode()
        yield
    finally:
        signal.signal(signal.SIGCONT, before)
        # Setting a terminal from the background would stop us, for instance after a hang-up.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
        except termios.error:
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
