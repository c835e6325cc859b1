"""Rumprun guests: one text that looks like JSON, whose keys may come again (rumprun, doc/config.md).

``{"cmdline":"…","env":"A=1","env":"B=2","net":{…},"blk":{…}}``

The network's prefix is always said to be 1, as urunc says it: Rumprun sets no route to a gateway outside of its network, and pods have such gateways.
Arguments are joined with single spaces; Rumprun splits them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from unikeel.guests.contract import Guest, Plain, Solo5Devices, joined, told, within
from unikeel.lean import Final
from unikeel.model.plan import ExitRule, LaunchRequest, Net
from unikeel.model.rootfs import BlockSupport

#: Solo5's limit (include/solo5/spt_abi.h, hvt_abi.h: 8192 bytes with the NUL).
CMDLINE_LIMIT: Final = 8191
_PREFIX: Final = "1"
#: Where its disk appears, if the image does not say; Rumprun's own root is in its kernel.
_MOUNT_POINT: Final = "/data"


class Rumprun(Plain):
    """The guest type ``rumprun``."""

    name = "rumprun"
    block = BlockSupport(supported=True, file_systems=("ext2",), single=True)
    initrd = False
    network = True
    addressed = True
    arguments = True
    environment = True
    shared: tuple[str, ...] = ()
    modern = False
    exit = ExitRule.DEBUG_EXIT
    devices = Solo5Devices("tap", "rootfs")
    powerdown = False

    def machine(self, accel: str, wish: str) -> str:
        """Its monitors have no machines."""
        del accel
        return wish or "microvm"

    def cmdline(self, request: LaunchRequest) -> str:
        """The text, at most 8191 bytes."""
        return within("{" + ",".join(_members(request)) + "}", CMDLINE_LIMIT, self.name)


def _members(request: LaunchRequest) -> Iterator[str]:
    yield _member("cmdline", joined(request))
    for variable in request.env:
        yield _member("env", variable)
    network = told(request)
    if network is not None:
        yield _member("net", _net(network))
    if request.disk is not None:
        place = request.guest.block_mount if request.guest.block and request.guest.block_mount != "/" else _MOUNT_POINT
        yield _member("blk", {"source": "etfs", "path": "/dev/ld0a", "fstype": "blk", "mountpoint": place})


def _net(network: Net) -> dict[str, str]:
    return {
        "if": "ukvmif0",
        "cloner": "True",
        "type": "inet",
        "method": "static",
        "addr": network.address,
        "mask": _PREFIX,
        "gw": network.gateway,
    }


def _member(key: str, value: object) -> str:
    """Without spaces, and with no more escapes than JSON needs: Rumprun decodes few."""
    return f'"{key}":{json.dumps(value, ensure_ascii=False, separators=(",", ":"))}'


GUEST: Final[Guest] = Rumprun()
