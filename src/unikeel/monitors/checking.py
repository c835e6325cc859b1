"""What every monitor refuses of a request, and the last line of what one says."""

from __future__ import annotations

from collections.abc import Sequence

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.plan import FIRST_FD, FileRole, LaunchRequest, PlanFile, TapNet
from unikeel.monitors.contract import Traits

#: Guest RAM in MiB.
MEMORY_RANGE: Final = (8, 1 << 20)
#: What a monitor of Linux's own KVM kind can be given of processors at most.
VCPUS_LIMIT: Final = 255
_LONGEST: Final = 1000


def check(request: LaunchRequest, traits: Traits, vcpus: int = VCPUS_LIMIT) -> None:
    """See that a monitor can be given what a request asks for.

    :param vcpus: the most processors that it can give. :raises InvalidArgument: it cannot.
    """
    name = request.guest.monitor
    least, most = MEMORY_RANGE
    if not least <= request.memory_mib <= most:
        raise InvalidArgument(f"a guest's memory must be {least} to {most} MiB, not {request.memory_mib}")
    if not 1 <= request.vcpus <= vcpus:
        most_words = "1 processor" if vcpus == 1 else f"1 to {vcpus} processors"
        raise InvalidArgument(f"a guest of {name} can have {most_words}, not {request.vcpus}")
    if request.halted:
        raise InvalidArgument(f"the monitor {name} cannot wait before its guest's first instruction")
    for disk in (request.disk, *(extra.disk for extra in request.extra)):
        if disk is not None and disk.format not in traits.disks:
            known = ", ".join(traits.disks)
            raise InvalidArgument(
                f"the monitor {name} cannot use a disk of format {quote(disk.format)}", f"it can: {known}"
            )
    if request.network is not None and not isinstance(request.network, TapNet):
        raise InvalidArgument(
            f"the monitor {name} has no user-mode networking", "use --net none, or a network with a tap device"
        )


def accelerated(request: LaunchRequest, traits: Traits) -> None:
    """See that a guest that needs hardware virtualization gets it. :raises InvalidArgument: it does not."""
    if request.accel not in traits.accels:
        raise InvalidArgument(
            f"the monitor {request.guest.monitor} works with {', '.join(traits.accels)} only, not with {request.accel}",
            "see `unikeel doctor` for what this host's virtualization does, or choose another monitor",
        )


def extra_roles(request: LaunchRequest) -> tuple[tuple[FileRole, bool], ...]:
    """The descriptors of a request's further disks, for :func:`files`."""
    return tuple((file.role, file.writable) for extra in request.extra for file in extra.files)


def first_numbers(inherited: Sequence[PlanFile]) -> dict[FileRole, int]:
    """The descriptors' numbers by role; of several of one role, the first."""
    return {file.role: FIRST_FD + index for index, file in reversed(tuple(enumerate(inherited)))}


def files(*roles: tuple[FileRole, bool] | None) -> tuple[PlanFile, ...]:
    """The descriptors of a plan, in the order of :class:`FileRole`; each with whether it is writable."""
    named = [role for role in roles if role is not None]
    return tuple(PlanFile(role, writable) for role in FileRole for name, writable in named if name is role)


def marked_line(stderr: bytes, marks: Sequence[str], remarks: Sequence[str] = ()) -> str:
    """The last line of a monitor's standard error that has one of these marks, else the last one that has none of these remarks."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not any(remark in line for remark in remarks)]
    marked = [line for line in said if any(mark in line for mark in marks)]
    return (marked or said or [""])[-1][:_LONGEST]


def reopened(number: int) -> str:
    """The path by which a monitor opens a descriptor that it inherited anew."""
    return f"/proc/self/fd/{number}"
