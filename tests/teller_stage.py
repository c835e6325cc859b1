"""A stage whose image ``files`` has the teller of :mod:`file_teller` in it, for guests with the kernel of this distribution."""

from __future__ import annotations

import os

import installed_kernel
from engine_stages import Stage
from file_teller import compile_teller
from ordinary_images import docker_archive


def teller_stage(directory: str) -> Stage:
    """The stage, in this directory; the image is loaded."""
    made = Stage(directory, config=installed_kernel.configuration())
    archive = os.path.join(directory, "files.tar")
    docker_archive(archive, compile_teller(os.path.join(directory, "program")), "")
    with made.engine() as engine:
        engine.load(archive, name="files")
    return made
