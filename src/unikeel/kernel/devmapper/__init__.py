"""Device-mapper by ioctl(2), without any program and without udev's help. Needs CAP_SYS_ADMIN.

- :mod:`.wire`: the bytes of a request and of an answer.
- :mod:`.control`: devices: made, given a table, resumed, suspended, removed, told and asked something.
- :mod:`.thin`: what thin pools and thin devices are told, and what they say of themselves.
- :mod:`.nodes`: names in ``/dev/mapper``.

Facts: the kernel's ``include/uapi/linux/dm-ioctl.h`` and ``Documentation/admin-guide/device-mapper/thin-provisioning.rst``.
"""

from __future__ import annotations

from unikeel.kernel.devmapper.control import Control, table
from unikeel.kernel.devmapper.wire import Info, Target, parse

__all__ = ["Control", "Info", "Target", "parse", "table"]
