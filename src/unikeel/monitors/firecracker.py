"""Firecracker: from a launch request to its arguments and its configuration file. It needs KVM.

Everything stands in the file that ``--config-file`` names (Firecracker, docs/getting-started.md; the keys are those of its API, firecracker.yaml), which is
in memory and inherited; kernel, initrd and disk are named by their descriptors, which it opens anew. It has no API here, so it ends by a
signal only: its ``SendCtrlAltDel`` would need a socket that it makes itself, where it could put something else. Its guest's serial port is its standard input
and output. ``--level Error`` keeps its own log out of that.
"""

from __future__ import annotations

import json

from unikeel.guests import urunit
from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.plan import Console, Control, ExitRule, FileRole, LaunchPlan, LaunchRequest, TapNet
from unikeel.monitors.checking import accelerated, check, extra_roles, files, first_numbers, marked_line, reopened
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

#: Its API's own limit (MAX_SUPPORTED_VCPUS).
VCPUS_LIMIT: Final = 32
_WANTED: Final = Wanted(
    "firecracker",
    "firecracker",
    (1, 0),
    "monitor.firecracker_path",
    "get a release of Firecracker and put its program into PATH, or set monitor.firecracker_path",
)


class Firecracker:
    """The monitor ``firecracker``."""

    name = "firecracker"
    traits = Traits(networks=("tap",), disks=("raw",), shared=(), accels=("kvm",), tap_by_name=True)

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        return program_facts(_WANTED, path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        check(request, self.traits, VCPUS_LIMIT)
        accelerated(request, self.traits)
        disk = request.disk
        inherited = files(
            (FileRole.KERNEL, False),
            (FileRole.INITRD, False) if request.initrd else None,
            (FileRole.DISK, not disk.read_only) if disk is not None else None,
            (FileRole.CONFIG, False),
            *extra_roles(request),
        )
        numbers = first_numbers(inherited)
        config = reopened(numbers[FileRole.CONFIG])
        return LaunchPlan(
            argv=(facts.path, "--no-api", "--config-file", config, "--level", "Error"),
            files=inherited,
            devices=("/dev/kvm", "/dev/net/tun") if request.network is not None else ("/dev/kvm",),
            environment=(),
            memory_mib=request.memory_mib,
            binds=facts.binds,
            exit=ExitRule.SAME,
            powerdown=False,
            control=Control.NONE,
            console=Console.STDIO,
            reopens=True,
            config=json.dumps(_configuration(request, guest, numbers)).encode(),
        )

    def complaint(self, stderr: bytes) -> str:
        """Its last line that is an error."""
        return marked_line(stderr, ("Error", "error", "panicked"))


def _configuration(request: LaunchRequest, guest: Guest, numbers: dict[FileRole, int]) -> dict[str, object]:
    source = {"kernel_image_path": reopened(numbers[FileRole.KERNEL]), "boot_args": guest.cmdline(request)}
    if request.initrd:
        source["initrd_path"] = reopened(numbers[FileRole.INITRD])
    configuration: dict[str, object] = {
        "boot-source": source,
        "machine-config": {
            "vcpu_count": request.vcpus,
            "mem_size_mib": request.memory_mib,
            "smt": False,
            "track_dirty_pages": False,
        },
        "drives": [],
    }
    if request.disk is not None:
        configuration["drives"] = [_drive("rootfs", numbers[FileRole.DISK], read_only=request.disk.read_only)]
    for number, extra in enumerate(request.extra, start=numbers.get(FileRole.EXTRA, 0)):
        drive = _drive(urunit.disk_id(request, extra), number, read_only=extra.disk.read_only)
        configuration["drives"] = [*configuration["drives"], drive]  # type: ignore[misc]  # the list from above
    if isinstance(request.network, TapNet):
        configuration["network-interfaces"] = [
            {"iface_id": "net1", "guest_mac": request.network.mac, "host_dev_name": request.network.name}
        ]
    return configuration


def _drive(name: str, number: int, *, read_only: bool) -> dict[str, object]:
    return {
        "drive_id": name,
        "path_on_host": reopened(number),
        "is_read_only": read_only,
        # It would add root= and ro or rw to the command line, which has them.
        "is_root_device": False,
    }


MONITOR: Final = Firecracker()
