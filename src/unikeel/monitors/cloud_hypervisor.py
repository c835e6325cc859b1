"""Cloud Hypervisor: from a launch request to its arguments. It needs KVM.

Options: ``cloud-hypervisor --help`` and its docs (device_model.md, api.md). It inherits everything as a descriptor: kernel, initrd and disk are opened anew
by their numbers, the tap and the API's listening socket used as they are. The guest's serial port is its standard input and output, or its virtio console
is, and the other one is off. Values in its key=value syntax hold only numbers and addresses, which are checked; a comma in one would begin another key.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.plan import Console, Control, DiskSpec, ExitRule, FileRole, LaunchPlan, LaunchRequest, TapNet
from unikeel.monitors.checking import accelerated, check, extra_roles, files, first_numbers, marked_line, reopened
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

#: ``image_type`` came with 50.1: before it, what a guest wrote at the beginning of its disk decided what format that was taken for (GHSA-jmr4-g2hv-mjj6).
LEAST_VERSION: Final = (50, 1)
_WANTED: Final = Wanted(
    "cloud-hypervisor",
    "cloud-hypervisor",
    LEAST_VERSION,
    "monitor.cloud_hypervisor_path",
    "get a release of Cloud Hypervisor and put its program into PATH, or set monitor.cloud_hypervisor_path",
)


class CloudHypervisor:
    """The monitor ``cloud-hypervisor``."""

    name = "cloud-hypervisor"
    traits = Traits(networks=("tap",), disks=("raw",), shared=(), accels=("kvm",), queues=True, virtio_console=True)

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
            *extra_roles(request),
            (FileRole.API, True),
        )
        numbers = first_numbers(inherited)
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
    serial, virtio = ("off", "tty") if request.virtio_console else ("tty", "off")
    yield from ("--serial", serial, "--console", virtio, "--seccomp", "true")
    disks = [_disk(request.disk, numbers[FileRole.DISK])] if request.disk is not None else []
    disks += [
        f"{_disk(extra.disk, number)},serial={plain(extra.disk.id)}"
        for number, extra in enumerate(request.extra, start=numbers.get(FileRole.EXTRA, 0))
    ]
    if disks:
        yield from ("--disk", *disks)
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


def _disk(disk: DiskSpec, number: int) -> str:
    read_only = ",readonly=on" if disk.read_only else ""
    return f"path={reopened(number)},id={plain(disk.id)},image_type=raw{read_only}"


def _queues(request: LaunchRequest) -> int:
    return request.network.queues if isinstance(request.network, TapNet) else 0


def _taps(first: int, queues: int) -> str:
    """Each descriptor is a pair of queues, one for each direction."""
    if queues == 1:
        return f"fd={first}"
    return f"fd=[{','.join(str(first + queue) for queue in range(queues))}],num_queues={2 * queues}"


MONITOR: Final = CloudHypervisor()
