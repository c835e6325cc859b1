"""Listening unix sockets that a monitor inherits: QMP and the guest's console.

They are bound by us in the container's private directory and passed as descriptors, so that they can be connected to before the monitor
runs, and again by a later keeper; the monitor never sees the directory.
"""

from __future__ import annotations

import os
import socket

from unikeel.keeper.wire import short_path


def listen(directory: str, name: str) -> socket.socket:
    """A socket listening at ``directory/name`` (mode 0600), whatever the length of the path; an old one is replaced."""
    path = os.path.join(directory, name)
    if os.path.lexists(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(directory, name) as short:
            sock.bind(short)
        os.chmod(path, 0o600)
        sock.listen(8)
    except BaseException:
        sock.close()
        raise
    return sock
