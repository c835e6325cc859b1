"""Builds the launcher and the guests' init along with the package; everything else that setuptools must know is in pyproject.toml.

A wheel ships the static binaries and is therefore one for a machine's architecture, and for every Python. An editable installation has them in
build/launcher and build/init; without a compiler that one is made all the same, and says so.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType
from typing import NamedTuple

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))


class Program(NamedTuple):
    """A program of ours in C: its directory below the package (with building.py), what it is called, where an editable installation has it."""

    source: tuple[str, ...]
    name: str
    place: str


PROGRAMS = (
    Program(("shim", "launcher"), "containerd-shim-unikeel-v2", "launcher"),
    Program(("guests", "init"), "unikeel-init", "init"),
)


def building(program: Program) -> ModuleType:
    """The module that compiles, without the package around it."""
    path = os.path.join(ROOT, "src", "unikeel", *program.source, "building.py")
    spec = importlib.util.spec_from_file_location(f"unikeel_{program.place}_building", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithPrograms(build_py):
    """The modules, and the programs' binaries."""

    def run(self) -> None:
        super().run()
        for program in PROGRAMS:
            try:
                building(program).build(self._binary(program))
            except (OSError, subprocess.CalledProcessError) as error:
                if not self.editable_mode:
                    raise SystemExit(f"{program.name} cannot be built (gcc and libc6-dev build it): {error}") from error
                sys.stderr.write(f"unikeel: no {program.name} was built (`make launcher` does it, with gcc): {error}\n")

    def _binary(self, program: Program) -> str:
        if self.editable_mode:
            return os.path.join(ROOT, "build", program.place, program.name)
        return os.path.join(self.build_lib, "unikeel", *program.source, program.name)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - setuptools' signature
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *map(self._binary, PROGRAMS)]


class WheelForOneMachine(bdist_wheel):
    """Any Python 3, one architecture: the binary is static."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class DistributionWithBinary(Distribution):
    """Not for every machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildWithPrograms, "bdist_wheel": WheelForOneMachine},
    distclass=DistributionWithBinary,
)
