"""What Solo5's two tenders have in common: from a launch request to their arguments.

``TENDER --mem=MIB --net:NAME=@FD --net-mac:NAME=MAC --block:NAME=FILE -- KERNEL COMMAND-LINE`` (Solo5, docs/building.md, tenders/*/…_main.c). The names are those of the
manifest in the kernel; a device that it declares and does not get is an error of the tender's. The tap is used as a descriptor; kernel and disk are
opened anew by their numbers. The guest's console is the tender's standard output. The tender's exit status is the guest's.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.plan import FIRST_FD, Console, Control, ExitRule, FileRole, LaunchPlan, LaunchRequest, TapNet
from unikeel.monitors.checking import check, files, marked_line, reopened
from unikeel.monitors.contract import Facts, Traits

#: A guest of Solo5 has one processor.
VCPUS_LIMIT: Final = 1


def plan(request: LaunchRequest, guest: Guest, facts: Facts, traits: Traits, devices: tuple[str, ...]) -> LaunchPlan:
    """What to launch. :param devices: device nodes that this tender opens. :raises InvalidArgument: as :func:`unikeel.monitors.checking.check`."""
    check(request, traits, VCPUS_LIMIT)
    inherited = files(
        (FileRole.KERNEL, False),
        (FileRole.DISK, True) if request.disk is not None else None,
        (FileRole.NET, True) if request.network is not None else None,
    )
    numbers = {file.role: FIRST_FD + index for index, file in enumerate(inherited)}
    return LaunchPlan(
        argv=(facts.path, *_arguments(request, guest, numbers)),
        files=inherited,
        devices=devices,
        environment=(),
        memory_mib=request.memory_mib,
        binds=facts.binds,
        exit=ExitRule.SAME,
        powerdown=False,
        control=Control.NONE,
        console=Console.STDIO,
        reopens=True,
        # Both ask whether what they map will be executable (and change nothing).
        syscalls=("personality",),
    )


def complaint(stderr: bytes, tender: str) -> str:
    """The tender's last line; it says nothing unless something is wrong."""
    return marked_line(stderr, (f"{tender}: ",)).removeprefix(f"{tender}: ")


def _arguments(request: LaunchRequest, guest: Guest, numbers: dict[FileRole, int]) -> Iterator[str]:
    yield f"--mem={request.memory_mib}"
    if isinstance(request.network, TapNet):
        name = request.guest.net_device or guest.devices.net
        yield from (f"--net:{name}=@{numbers[FileRole.NET]}", f"--net-mac:{name}={request.network.mac}")
    if request.disk is not None:
        yield f"--block:{request.guest.block_device or guest.devices.block}={reopened(numbers[FileRole.DISK])}"
    yield from ("--", reopened(numbers[FileRole.KERNEL]))
    cmdline = guest.cmdline(request)
    if cmdline:
        yield cmdline
