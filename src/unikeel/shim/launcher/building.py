"""Compiling the launcher: ``python -m unikeel.shim.launcher.building OUTPUT`` (the Makefile and setup.py use this).

The program is static: it must start in under a millisecond, on hosts and in images whose C library is another. Only the standard library and
a C compiler (``CC``, else ``cc``) are needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

SOURCES: Final = ("launcher.c", "wire.c")
_HEADERS: Final = ("wire.h",)
_WARNINGS: Final = (
    "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wformat=2", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wno-missing-field-initializers",
)  # fmt: skip
_LANGUAGE: Final = ("-std=c11", "-D_GNU_SOURCE")
_STATIC: Final = (
    "-Os", "-static-pie", "-fPIE", "-s", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-ffunction-sections", "-Wl,--gc-sections", "-Wl,-z,relro,-z,now",
)  # fmt: skip
#: For the tests: every access is checked, and any mistake is the end.
SANITIZED: Final = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def directory() -> str:
    """Where the sources are."""
    return os.path.dirname(os.path.abspath(__file__))


def version() -> str:
    """Our version, by the one module that has it; the package itself may not be importable while it is built."""
    names: dict[str, str] = {}
    path = os.path.join(os.path.dirname(os.path.dirname(directory())), "version.py")
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), names)  # noqa: S102 - our own file, and not imported, because of what else imports
    return names["VERSION"]


def command(output: str, options: Sequence[str] = _STATIC) -> list[str]:
    """The compiler's whole command line."""
    sources = [os.path.join(directory(), name) for name in SOURCES]
    named = f'-DUNIKEEL_VERSION="{version()}"'
    return [os.environ.get("CC") or "cc", *_LANGUAGE, *_WARNINGS, named, *options, "-o", output, *sources]


def is_current(output: str) -> bool:
    """Whether the output is newer than everything that it is made of."""
    parts = [os.path.join(directory(), name) for name in (*SOURCES, *_HEADERS, "building.py")]
    parts.append(os.path.join(os.path.dirname(os.path.dirname(directory())), "version.py"))
    try:
        made = os.stat(output).st_mtime_ns
    except FileNotFoundError:
        return False
    return all(os.stat(part).st_mtime_ns < made for part in parts)


def build(output: str, options: Sequence[str] = _STATIC) -> None:
    """Compile; the output appears whole. :raise OSError: there is no compiler. :raise subprocess.CalledProcessError: it failed, and has said why."""
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    part = f"{output}.{os.getpid()}.part"
    try:
        subprocess.run(command(part, options), check=True)
        os.replace(part, output)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def main(arguments: Sequence[str]) -> int:
    """Build what is named, unless it is current."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m unikeel.shim.launcher.building OUTPUT\n")
        return 2
    if is_current(arguments[0]):
        return 0
    try:
        build(arguments[0])
    except OSError as error:
        sys.stderr.write(
            f"the launcher cannot be built: {error.filename}: {error.strerror} (install gcc and libc6-dev)\n"
        )
        return 1
    except subprocess.CalledProcessError:
        sys.stderr.write("the launcher cannot be built: what the compiler said is above\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
