"""What ``inspect`` tells of a container."""

from __future__ import annotations

import json
import os

from unikeel.engine.containers import Container
from unikeel.engine.services import Services, read_text
from unikeel.engine.settings import Settings
from unikeel.errors import NotFound


def describe(services: Services, container: Container) -> dict[str, object]:
    """The record, how it is run, and its disk, as JSON values. Times are nanoseconds since the epoch, sizes bytes."""
    found: dict[str, object] = container._asdict()
    for internal in ("owner", "boot_id", "start_time"):
        del found[internal]
    found["state"] = container.state.value
    found["auto_remove"] = bool(container.auto_remove)
    found["uid"] = services.uid(container.slot)
    settings = Settings.from_json(dict(container.settings))
    found["rootfs"] = {"kind": settings.rootfs, "reason": settings.rootfs_reason}
    found["disk"] = _disk(services, container.id)
    found["monitor"] = _monitor(services, container.id)
    found["console_log"] = os.path.join(services.layout.container(container.id), "console.log")
    return found


def _disk(services: Services, ident: str) -> dict[str, object] | None:
    try:
        disk, usage = services.snapshots.disk(ident), services.snapshots.usage(ident)
    except NotFound:
        return None
    return {
        "path": disk.path,
        "format": disk.format,
        "backing": disk.backing,
        "size": disk.size,
        "how": disk.how.value,
        "usage": usage.size,
    }


def _monitor(services: Services, ident: str) -> dict[str, object] | None:
    """The command line and the rules of its last start."""
    text = read_text(os.path.join(services.layout.container(ident), "plan.json"))
    found: object = json.loads(text) if text else None
    return found if isinstance(found, dict) else None
