"""Programs from the C sources beside this file. The same sources and compiler give the same bytes, wherever they lie."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

SOURCES: Final = os.path.dirname(os.path.abspath(__file__))
COMPILER: Final = "gcc"
_COMMON: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-g0", "-s", "-Wl,--build-id=none")
#: No operating system below it: no libc, no SSE state that nobody has set up, no stack protector's canary.
_FREESTANDING: Final = (
    "-m32", "-march=i686", "-ffreestanding", "-fno-pic", "-no-pie", "-nostdlib", "-static", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mno-sse", "-mno-mmx", "-Wl,--no-warn-rwx-segments",
)  # fmt: skip
#: Static, since an initrd has no libraries.
_LINUX: Final = ("-static", "-I", "guest-init")


class CompileError(Exception):
    """The compiler refused; the message is what it said."""


def version() -> str:
    """The compiler's own words for what it is. :raise CompileError: there is none."""
    return _run([COMPILER, "--version"]).partition("\n")[0]


def unikernel(directory: str, output: str) -> None:
    """All C and assembler files of a directory, linked by its linker script. :raise CompileError: there is a mistake."""
    files = sorted(os.listdir(os.path.join(SOURCES, directory)))
    script = next(name for name in files if name.endswith(".ld"))
    sources = [os.path.join(directory, name) for name in files if name.endswith((".c", ".S"))]
    _run([COMPILER, *_COMMON, *_FREESTANDING, "-T", os.path.join(directory, script), *sources, "-o", output])


def program(sources: tuple[str, ...], output: str) -> None:
    """A static Linux program. :raise CompileError: there is a mistake."""
    _run([COMPILER, *_COMMON, *_LINUX, *sources, "-o", output])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise CompileError(f"{command[0]} is not installed (run `make packages`)") from error
    if done.returncode:
        raise CompileError(f"{' '.join(command)}\n{done.stderr}")
    sys.stderr.write(done.stderr)  # warnings: a newer compiler's are no reason to fail somebody's build
    return done.stdout
