"""Running test modules of ``tests/machine`` inside the lab's virtual machine, by pytest, which is brought along: it is pure Python."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import tarfile
from typing import Final

from lab.machine import Machine
from lab_support.waiting import PATIENCE

_PACKAGES: Final = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
_PYTHON: Final = "/opt/unikeel/bin/python"
_SITE: Final = "/var/tmp/pytest-site"
_TESTS: Final = "/unikeel/tests/machine"


def bring_pytest(machine: Machine) -> None:
    """Put pytest into a machine, once."""
    if machine.run(["test", "-d", f"{_SITE}/pytest"], check=False).returncode == 0:
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name in _PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            single = spec.submodule_search_locations is None
            source, target = (spec.origin, f"{name}.py") if single else (os.path.dirname(spec.origin), name)
            archive.add(source, target, filter=_without_bytecode)
        _add_metadata(archive, "pluggy")  # which asks for its own version
    machine.put(f"{_SITE}.tar.gz", packed.getvalue())
    unpack = f"mkdir -p {_SITE} && tar -xzf {_SITE}.tar.gz -C {_SITE}"
    machine.run(["sh", "-c", unpack], timeout=PATIENCE * machine.slowness)


def _add_metadata(archive: tarfile.TarFile, name: str) -> None:
    directory = f"{name}-{importlib.metadata.version(name)}.dist-info"
    archive.add(str(importlib.metadata.distribution(name).locate_file(directory)), directory)


def _without_bytecode(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member


def run_inside(machine: Machine, module: str, *options: str, patience: float = 5 * PATIENCE, **env: str) -> str:
    """Run one module of ``tests/machine``; what pytest printed. It fails as the module does."""
    bring_pytest(machine)
    argv = [_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", f"{_TESTS}/pytest.ini"]
    environment = {
        "PYTHONPATH": f"/unikeel/src:/unikeel/tests:{_SITE}",
        "UNIKEEL_LONG": os.environ.get("UNIKEEL_LONG", ""),
    }
    done = machine.run(
        [*argv, *options, f"{_TESTS}/{module}"], timeout=patience * machine.slowness, check=False, env=environment | env
    )
    assert done.returncode == 0, f"{module} failed in the machine:\n{done.stdout[-20000:]}{done.stderr[-2000:]}"
    return done.stdout
