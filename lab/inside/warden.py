"""``warden.py LIFELINE ARGV…``: runs a program that ends with whoever holds the other end of the lifeline, a pipe, however that one ends.

(A death signal alone follows a parent's *thread*, and tests start things from threads.)
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys


def main() -> int:
    """The program's exit code."""
    lifeline, argv = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(lifeline, False)
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        os.execvp(argv[0], argv)  # noqa: S606 - an argument list
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(readable, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if lifeline in ready:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.read(readable, 4096)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return max(0, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
