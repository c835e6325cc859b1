"""udev told, once and for all devices with our kind of UUID, that it has no business with them.

Its rules for device-mapper would otherwise, for each event of each device, look for file systems and labels, hold the device open meanwhile, make links and
watch it for writers. The flags in an event's number (:mod:`.control`) say the same for one event, at the price of two processes that udev starts to read them.
A rules file in ``/run`` says it for free, and is gone after a reboot.
"""

from __future__ import annotations

import os
import time

from unikeel.lean import Final

#: What the UUID of every device begins with that udev is to leave alone.
UUID_PREFIX: Final = "UNIKEEL-"
#: Before the rules for device-mapper, which are 55-dm.rules in Debian and 10-dm.rules elsewhere.
_NAME: Final = "09-unikeel.rules"
_PLACES: Final = ("/run/udev/rules.d", "/etc/udev/rules.d", "/usr/lib/udev/rules.d")
_RUNNING: Final = "/run/udev"
#: udev looks for changed rules every three seconds.
_KNOWN_AFTER: Final = 10.0
_RULE: Final = """\
# unikeel's thin devices: no links, no scans, no watching. Written at each start of the snapshot store.
SUBSYSTEM=="block", KERNEL=="dm-[0-9]*", ATTR{dm/uuid}=="UNIKEEL-*", ENV{DM_UDEV_PRIMARY_SOURCE_FLAG}="1", \
ENV{DM_UDEV_DISABLE_DM_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG}="1", \
ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1", OPTIONS:="nowatch"
"""


def knows(now: float | None = None) -> bool:
    """Whether udev has had the time to read our rules, or does not run at all."""
    if not os.path.isdir(_RUNNING):
        return True
    for place in _PLACES:
        try:
            written = os.stat(os.path.join(place, _NAME)).st_mtime
        except OSError:
            continue
        return (time.time() if now is None else now) - written > _KNOWN_AFTER
    return False


def tell() -> None:
    """Write the rules, unless they are there. What cannot be written is told to udev with each event instead."""
    if not os.path.isdir(_RUNNING) or any(os.path.exists(os.path.join(place, _NAME)) for place in _PLACES):
        return
    place = os.path.join(_PLACES[0], _NAME)
    try:
        os.makedirs(_PLACES[0], exist_ok=True)
        with open(f"{place}.new", "w", encoding="ascii") as file:
            file.write(_RULE)
        os.rename(f"{place}.new", place)
    except OSError:
        return
