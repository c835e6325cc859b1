"""``python -m lab build [PART…]``, ``python -m lab shell [trixie|sid|vm]``, ``python -m lab versions``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from lab import root
from lab.commands import Progress
from lab.errors import LabError
from lab.recipe import ROOTS

_PARTS = (*ROOTS, "tools", "images", "disk")


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument(
        "part", nargs="*", help=f"of {', '.join(_PARTS)}; without one, everything"
    )
    shell = commands.add_parser("shell")
    shell.add_argument("where", nargs="?", default="trixie", choices=(*ROOTS, "vm"))
    shell.add_argument("--snapshotter", default="")
    commands.add_parser("versions")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        raise LabError("the lab needs root")
    if options.command == "build":
        build(options.part)
    elif options.command == "shell":
        from lab.shell import shell as open_shell

        return open_shell(options.where, options.snapshotter)
    else:
        print(json.dumps({name: root.opened(name).versions for name in ROOTS}, indent=1))
    return 0


def build(parts: Sequence[str]) -> None:
    """Build what is not up to date."""
    if unknown := [part for part in parts if part not in _PARTS]:
        raise LabError(f"the lab has no part {unknown[0]}, only {', '.join(_PARTS)}")
    tell = Progress()
    wanted = parts or _PARTS
    for name in ROOTS:
        if name in wanted:
            root.built(name, tell)
    if "tools" in wanted:
        from lab import tools

        tools.built(tell)
    if "images" in wanted:
        from lab import images

        images.built(tell)
    if "disk" in wanted:
        from lab import disk

        disk.built(tell)
    tell("")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        print(f"\nlab: {error}", file=sys.stderr)
        sys.exit(1)
