"""Builds the launcher along with the package; everything else that setuptools must know is in pyproject.toml.

A wheel ships the static binary and is therefore one for a machine's architecture, and for every Python. An editable installation has it in
build/launcher; without a compiler that one is made all the same, and says so.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join("src", "unikeel", "shim", "launcher")
PROGRAM = "containerd-shim-unikeel-v2"


def building() -> ModuleType:
    """The module that compiles, without the package around it."""
    spec = importlib.util.spec_from_file_location(
        "unikeel_launcher_building", os.path.join(ROOT, SOURCE, "building.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithLauncher(build_py):
    """The modules, and the launcher's binary."""

    def run(self) -> None:
        super().run()
        try:
            building().build(self._binary())
        except (OSError, subprocess.CalledProcessError) as error:
            if not self.editable_mode:
                raise SystemExit(f"the launcher cannot be built (gcc and libc6-dev build it): {error}") from error
            sys.stderr.write(f"unikeel: no launcher was built (`make launcher` does it, with gcc): {error}\n")

    def _binary(self) -> str:
        if self.editable_mode:
            return os.path.join(ROOT, "build", "launcher", PROGRAM)
        return os.path.join(self.build_lib, "unikeel", "shim", "launcher", PROGRAM)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - setuptools' signature
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, self._binary()]


class WheelForOneMachine(bdist_wheel):
    """Any Python 3, one architecture: the binary is static."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class DistributionWithBinary(Distribution):
    """Not for every machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildWithLauncher, "bdist_wheel": WheelForOneMachine},
    distclass=DistributionWithBinary,
)
