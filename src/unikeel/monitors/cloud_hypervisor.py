"""Cloud Hypervisor: from a launch request to its arguments. It needs KVM.

Options: ``cloud-hypervisor --help`` and its docs (device_model.md, api.md). It inherits everything as a descriptor: kernel, initrd and disk are opened anew
by their numbers, the tap and the API's listening socket used as they are. The guest's serial port is its standard input and output, its virtio console
is off. Values in its key=value syntax hold only numbers and addresses, which are checked; a comma in one would begin another key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from unikeel.errors import InvalidArgument
from unikeel.guests.contract import Guest
from unikeel.model.names import quote
from unikeel.model.plan import FIRST_FD, Console, Control, ExitRule, FileRole, LaunchPlan, LaunchRequest, TapNet
from unikeel.monitors.checking import accelerated, check, files, marked_line, reopened
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

_WANTED: Final = Wanted(
    "cloud-hypervisor",
    "cloud-hypervisor",
    (38, 0),
    "monitor.cloud_hypervisor_path",
    "get a release of Cloud Hypervisor and put its program into PATH, or set monitor.cloud_hypervisor_path",
)


class CloudHypervisor:
    """The monitor ``cloud-hypervisor``."""

    name = "cloud-hypervisor"
    traits = Traits(networks=("tap",), disks=("raw",), shared=(), accels=("kvm",), queues=True)

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        return program_facts(_WANTED, path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        check(request, self.traits)
        accelerated(request, self.traits)
        disk = request.disk
        inherited = files(
            (FileRole.KERNEL, False),
            (FileRole.INITRD, False) if request.initrd else None,
            (FileRole.DISK, not disk.read_only) if disk is not None else None,
            *(((FileRole.NET, True),) * _queues(request)),
            (FileRole.API, True),
        )
        # Of several of one role, the first.
        numbers = {file.role: FIRST_FD + index for index, file in reversed(tuple(enumerate(inherited)))}
        wish = request.guest.powerdown
        return LaunchPlan(
            argv=(facts.path, *_arguments(request, guest.cmdline(request), numbers)),
            files=inherited,
            devices=("/dev/kvm",),
            environment=(),
            memory_mib=request.memory_mib,
            binds=facts.binds,
            exit=ExitRule.SAME,
            powerdown=guest.powerdown if wish is None else wish,
            control=Control.HTTP,
            console=Console.STDIO,
            reopens=True,
        )

    def complaint(self, stderr: bytes) -> str:
        """Its last line that is an error."""
        return marked_line(stderr, ("Error", "ERROR", "error", "panicked"), ("WARN", "INFO"))


def plain(value: str) -> str:
    """A value in its key=value syntax, which knows no escape outside of quotes. :raises InvalidArgument: it would say something else."""
    if not value or any(char in ',="[]@' or not char.isprintable() or char.isspace() for char in value):
        raise InvalidArgument(f"{quote(value)} cannot be given to Cloud Hypervisor")
    return value


def _arguments(request: LaunchRequest, cmdline: str, numbers: dict[FileRole, int]) -> Iterator[str]:
    yield from ("--api-socket", f"fd={numbers[FileRole.API]}")
    yield from ("--cpus", f"boot={request.vcpus}", "--memory", f"size={request.memory_mib}M")
    yield from ("--serial", "tty", "--console", "off", "--seccomp", "true")
    if request.disk is not None:
        read_only = ",readonly=on" if request.disk.read_only else ""
        # Named, since it would look for another format's header in what a guest wrote.
        yield from ("--disk", f"path={reopened(numbers[FileRole.DISK])},id={plain(request.disk.id)}{read_only}")
    if isinstance(request.network, TapNet):
        mtu = f",mtu={request.network.mtu}" if request.network.mtu else ""
        yield from (
            "--net",
            f"{_taps(numbers[FileRole.NET], request.network.queues)},mac={plain(request.network.mac)}{mtu}",
        )
    yield from ("--kernel", reopened(numbers[FileRole.KERNEL]))
    if request.initrd:
        yield from ("--initramfs", reopened(numbers[FileRole.INITRD]))
    if cmdline:
        yield from ("--cmdline", cmdline)


def _queues(request: LaunchRequest) -> int:
    return request.network.queues if isinstance(request.network, TapNet) else 0


def _taps(first: int, queues: int) -> str:
    """Each descriptor is a pair of queues, one for each direction."""
    if queues == 1:
        return f"fd={first}"
    return f"fd=[{','.join(str(first + queue) for queue in range(queues))}],num_queues={2 * queues}"


MONITOR: Final = CloudHypervisor()
