"""The launcher, ``containerd-shim-unikeel-v2``: the static C program that containerd executes, and where its binary is.

``launcher.c`` and ``wire.c`` are the program; :mod:`unikeel.shim.launcher.building` compiles it. A wheel ships the binary in this directory; in a
checkout it is ``build/launcher/containerd-shim-unikeel-v2``, which ``make launcher`` builds (an installation with ``-e`` does, too).
"""

from __future__ import annotations

import os
from typing import Final

from unikeel.errors import NotFound

#: What containerd looks for when a runtime is called ``io.containerd.unikeel.v2``.
PROGRAM: Final = "containerd-shim-unikeel-v2"
RUNTIME: Final = "io.containerd.unikeel.v2"


def candidates() -> tuple[str, ...]:
    """Where the binary may be; the first that exists counts."""
    here = os.path.dirname(os.path.abspath(__file__))
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(here))))
    return (os.path.join(here, PROGRAM), os.path.join(checkout, "build", "launcher", PROGRAM))


def binary() -> str:
    """The path of the launcher that belongs to this installation. :raise NotFound: it has none."""
    for path in candidates():
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotFound(
        f"this installation of unikeel has no launcher {PROGRAM}", "in a checkout, `make launcher` builds it with gcc"
    )
