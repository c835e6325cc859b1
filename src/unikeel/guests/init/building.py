"""Compiling the guests' init from the sources beside this file: at the build of the package (setup.py) and by ``make launcher``.

It uses no C library, so a C compiler (``CC``, else ``cc``) and Linux's headers are enough, and it has a few kilobytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from unikeel.lean import Final

NAME: Final = "unikeel-init"
SOURCES: Final = ("init.c", "files.c", "network.c", "running.c", "settings.c", "text.c")
_WARNINGS: Final = (
    "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes",
)  # fmt: skip
#: Nothing that the compiler puts in by itself would be there: canaries, tables for exceptions, calls of a library.
_ALONE: Final = (
    "-std=c11", "-Os", "-s", "-static", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mgeneral-regs-only", "-fno-tree-loop-distribute-patterns",
    "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,noexecstack",
)  # fmt: skip


def directory() -> str:
    """Where the sources are."""
    return os.path.dirname(os.path.abspath(__file__))


def program() -> str:
    """Where the init is: beside this file in an installed package, in ``build/init`` of a source tree."""
    installed = os.path.join(directory(), NAME)
    if os.path.exists(installed):
        return installed
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(directory()))))
    return os.path.join(tree, "build", "init", NAME)


def command(output: str) -> list[str]:
    """The compiler's whole command line."""
    sources = [os.path.join(directory(), name) for name in SOURCES]
    return [os.environ.get("CC") or "cc", *_ALONE, *_WARNINGS, "-o", output, *sources]


def is_current(output: str) -> bool:
    """Whether the output is newer than everything that it is made of."""
    parts = [entry.path for entry in os.scandir(directory()) if entry.name.endswith((".c", ".h", "building.py"))]
    try:
        made = os.stat(output).st_mtime_ns
    except FileNotFoundError:
        return False
    return all(os.stat(part).st_mtime_ns < made for part in parts)


def build(output: str) -> None:
    """Compile; the output appears whole. :raise OSError: there is no compiler. :raise subprocess.CalledProcessError: it failed, and has said why."""
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    part = f"{output}.{os.getpid()}.part"
    try:
        subprocess.run(command(part), check=True)
        os.replace(part, output)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def main(arguments: Sequence[str]) -> int:
    """Build what is named, unless it is current."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m unikeel.guests.init.building OUTPUT\n")
        return 2
    if is_current(arguments[0]):
        return 0
    try:
        build(arguments[0])
    except OSError as error:
        sys.stderr.write(
            f"the init cannot be built: {error.filename}: {error.strerror} (install gcc and linux-libc-dev)\n"
        )
        return 1
    except subprocess.CalledProcessError:
        sys.stderr.write("the init cannot be built: what the compiler said is above\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
