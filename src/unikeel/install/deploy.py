"""deploy/, as far as it is made from the same texts: ``python -m unikeel.install.deploy DIRECTORY``; a test compares."""

from __future__ import annotations

import os
import sys
from typing import Final

from unikeel.config import defaults
from unikeel.install import texts

#: What the unit in deploy/ runs; `unikeel install containerd` writes the command that it is itself.
COMMAND: Final = "/usr/local/bin/unikeel"


def files() -> dict[str, str]:
    """Every file by its path in deploy/."""
    return {
        "systemd/unikeel.socket": texts.socket_unit(),
        "systemd/unikeel.service": texts.service_unit(COMMAND),
        "containerd/config-v2.toml": texts.block(2, texts.HANDLER, ""),
        "containerd/conf.d-v3.toml": texts.drop_in(3, texts.HANDLER, ""),
        "kubernetes/runtimeclass.yaml": texts.runtime_class(texts.HANDLER, defaults().sandbox_monitor_allowance),
    }


def main(directory: str) -> None:
    """Write them."""
    for name, text in files().items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
