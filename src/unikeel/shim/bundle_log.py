"""What is said of one task, to whoever reads containerd's log: the ``log`` fifo of the task's bundle (containerd.md 1.5).

containerd keeps the reading end open and copies each line to its own standard error. A line that cannot be written at once is lost: nobody's start waits
for a log.
"""

from __future__ import annotations

import os
import stat
from typing import Final

#: A write of at most this much to a fifo is whole or not at all (PIPE_BUF).
_WHOLE: Final = 4096


def say(bundle: str, text: str) -> None:
    """One line of text to the bundle's log, if that is a fifo with a reader."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    data = f"unikeel: {line}\n".encode()[:_WHOLE]
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(os.path.join(bundle, "log"), flags)
    except OSError:
        return
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, data)
    except OSError:
        return
    finally:
        os.close(fd)


__all__ = ["say"]
