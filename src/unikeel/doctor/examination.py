"""All checks, in the order in which they are shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unikeel.doctor import host, networks, programs, storage, trial
from unikeel.doctor.findings import Finding, Level
from unikeel.errors import UnikeelError

if TYPE_CHECKING:
    from unikeel.config import Config


def examine(config: Config, root: str) -> list[Finding]:
    """Check the host for a state root, which need not exist. What only root can try is left out for others."""
    findings = [host.user(), host.python()]
    facts = os.path.join(root, "facts")
    cache = facts if os.access(facts, os.W_OK) else ""
    findings += programs.qemu(config, cache)
    findings += programs.others(config, cache)
    findings += [networks.cni(config)]
    findings += [
        programs.passt(),
        programs.virtiofsd(config),
        programs.skopeo(),
        storage.state_root(root),
        storage.free_space(root),
    ]
    try:
        with storage.workplace(root) as place:
            findings.append(storage.reflink(place))
            if os.geteuid() == 0:
                findings += storage.pools(root)
                findings += host.kernel_features(place)
                findings.append(networks.tap())
                findings += trial.runtimes(config, place)
    except UnikeelError as error:
        findings.append(Finding("state-root-writable", Level.PROBLEM, error.message, error.hint))
    return findings
