"""The working tree, compiled by a root's interpreter: read-only inside, it could not keep what it compiles itself.

What is compiled lies apart, ``bytecode/trixie/unikeel/__pycache__/errors.cpython-313.pyc``, and is laid over the tree's ``src`` as a read-only
overlay. So every way to start an interpreter finds it, also ``-I -S``.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final

from lab.commands import clean_environment, tail
from lab.errors import LabError
from lab.paths import PROJECT, cache, locked
from lab.root import LabRoot

#: Runs with the root's interpreter, chrooted: the source on /mnt, the target on /media.
_COMPILE: Final = """
import os, py_compile, sys, sysconfig
tag = sys.implementation.cache_tag
def current(source, compiled):
    try:
        with open(compiled, "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return False
    found = os.stat(source)
    return head[8:12] == (int(found.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") and head[12:] == (found.st_size & 0xFFFFFFFF).to_bytes(4, "little")
for directory, names, files in os.walk("/mnt"):
    names[:] = [name for name in names if name != "__pycache__"]
    for name in files:
        if not name.endswith(".py"):
            continue
        source = os.path.join(directory, name)
        relative = os.path.relpath(source, "/mnt")
        head, tail = os.path.split(relative)
        compiled = os.path.join("/media", head, "__pycache__", f"{tail[:-3]}.{tag}.pyc")
        try:
            if not current(source, compiled):
                py_compile.compile(source, compiled, os.path.join("/unikeel/src", relative), doraise=True)
        except (py_compile.PyCompileError, FileNotFoundError):
            pass
"""
_RUN: Final = (
    'mount --bind "$2" "$1/mnt" && mount --bind "$3" "$1/media" && exec chroot "$1" /usr/bin/python3 -I -S -c "$4"'
)


def compiled(root: LabRoot) -> str:
    """The directory with the compiled tree, brought up to date. What cannot be compiled is left out: whoever imports it is told."""
    target = cache("bytecode", root.name)
    os.makedirs(target, exist_ok=True)
    with locked(target + ".lock"):
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _RUN, "sh"]
        argv += [root.path, os.path.join(PROJECT, "src"), target, _COMPILE]
        done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise LabError(f"the working tree cannot be compiled in {root.name}: {tail(done.stderr)}")
    return target
