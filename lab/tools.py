"""``crictl`` for the lab, built from its published module where the host has Go; it lies in ``/opt/lab-tools`` inside.

Debian has no package of it. Without Go it is recorded as absent, and what wants it has to do without.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

from lab.commands import Tell, run
from lab.errors import LabError
from lab.paths import cache, locked

_CRICTL: Final = "sigs.k8s.io/cri-tools/cmd/crictl@v1.37.0"
_RECORD: Final = "crictl.version"


def crictl() -> str:
    """The host's path of the built crictl; an empty text if there is none."""
    path = cache("tools", "crictl")
    return path if os.access(path, os.X_OK) else ""


def built(tell: Tell) -> None:
    """Build what can be built and is not there."""
    record = cache("tools", _RECORD)
    with locked(cache("tools.lock")):
        os.makedirs(os.path.dirname(record), exist_ok=True)
        if _read(record) == _CRICTL and crictl():
            return
        if shutil.which("go") is None:
            _write(record, "absent")
            tell("tools: crictl is absent, this host has no Go")
            return
        tell("tools: crictl, from its Go module")
        part = cache("tools.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            run(
                ["go", "install", "-ldflags=-s -w", _CRICTL],
                timeout=900,
                environment=os.environ | {"GOBIN": part, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"},
            )
            os.replace(os.path.join(part, "crictl"), cache("tools", "crictl"))
        except LabError as error:
            _write(record, "absent")
            tell(f"tools: crictl is absent: {error}")
        else:
            _write(record, _CRICTL)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def version() -> str:
    """What was built, or ``absent``."""
    return (_read(cache("tools", _RECORD)) if crictl() else "") or "absent"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
