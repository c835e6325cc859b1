"""User-mode Linux: a Linux kernel that is a process of the host, from a launch request to its arguments. It needs no virtualization.

It is the kernel of the distribution's package, never one of an image: the image gives root and initrd, and the kernel that it names is not even read.
Options: ``linux.uml --help`` and Documentation/virt/uml/user_mode_linux_howto_v2.rst. Each argument that *begins* with one of UML's own words is an option of
the host's side, so the guest's whole command line is one argument, which begins with ``panic=``: nothing that an image or a user says can become such an
option. Words of the line that Linux itself knows as its consoles' channels (``con…``, ``ssl…``) are refused as variables. UML adds ``root=`` and ``console=`` of
its own where it sees none before, hence both come first, too.

The guest's memory is a file beneath ``/tmp`` of the sandbox, which it maps and executes; it traces its guest's processes with ptrace (both beyond what
other monitors may). It prints a panic and aborts; a program's exit status comes out by ``/proc/exitcode``.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.plan import Console, Control, ExitRule, FileRole, LaunchPlan, LaunchRequest
from unikeel.monitors.checking import check, extra_roles, files, first_numbers, marked_line, reopened
from unikeel.monitors.contract import Facts, Traits
from unikeel.monitors.probing import Wanted, program_facts

#: User-mode Linux has one processor.
VCPUS_LIMIT: Final = 1
#: Its directory of sockets in the sandbox, and the name of the guest in it: ``mconsole`` is in ``DIRECTORY/NAME``.
DIRECTORY: Final = "/tmp/uml"  # noqa: S108 - the sandbox's own, in memory
NAME: Final = "guest"
#: What the sandbox's file system in memory needs beyond the guest's RAM.
_SPARE: Final = 4 << 20
_CHANNELS: Final = ("con", "ssl")
_SYSCALLS: Final = ("ptrace", "modify_ldt", "mkdir", "rmdir")
_WANTED: Final = Wanted(
    "uml", "linux.uml", (6, 0), "monitor.uml_path", "install the package user-mode-linux, or set monitor.uml_path"
)


class Uml:
    """The monitor ``uml``."""

    name = "uml"
    traits = Traits(networks=(), disks=("raw",), shared=(), accels=(), kernel=False)

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        return program_facts(_WANTED, path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        _check(request, self.traits)
        disk = request.disk
        inherited = files(
            (FileRole.INITRD, False) if request.initrd else None,
            (FileRole.DISK, not disk.read_only) if disk is not None else None,
            *extra_roles(request),
        )
        numbers = first_numbers(inherited)
        wish = request.guest.powerdown
        return LaunchPlan(
            argv=(facts.path, *_arguments(request, guest.cmdline(request), numbers)),
            files=inherited,
            devices=(),
            environment=("TMPDIR=/tmp",),
            memory_mib=request.memory_mib,
            binds=facts.binds,
            exit=ExitRule.SAME,
            powerdown=guest.powerdown if wish is None else wish,
            control=Control.MCONSOLE,
            console=Console.STDIO,
            reopens=True,
            scratch=(request.memory_mib << 20) + _SPARE,
            syscalls=_SYSCALLS,
        )

    def complaint(self, stderr: bytes) -> str:
        """Its last line on standard error; what the guest's kernel prints goes to the console."""
        return marked_line(stderr, ("Too few", "ailed", "rror", "annot", "Can't", "can't"))


def _check(request: LaunchRequest, traits: Traits) -> None:
    check(request, traits, VCPUS_LIMIT)
    if request.network is not None:
        raise InvalidArgument("the monitor uml has no network here", "use --net none")
    if request.disk is None and not request.initrd:
        raise InvalidArgument(
            "user-mode Linux needs a root file system: an initrd or a disk",
            "let the image name one, or its mountRootfs be true",
        )
    for variable in request.env:
        if variable.startswith(_CHANNELS):
            raise InvalidArgument(
                f"{quote(variable)} cannot be passed to user-mode Linux: it takes names that begin with 'con' or 'ssl' for its consoles"
            )


def _arguments(request: LaunchRequest, cmdline: str, numbers: dict[FileRole, int]) -> Iterator[str]:
    yield f"mem={request.memory_mib}M"
    yield from (f"uml_dir={DIRECTORY}", f"umid={NAME}")
    # Its own way of starting again would be another exec; a restart is the end here, as with QEMU.
    yield from ("noreboot", "con0=fd:0,fd:1", "con=null", "ssl=null")
    if request.initrd:
        yield f"initrd={reopened(numbers[FileRole.INITRD])}"
    disks = [(request.disk, numbers[FileRole.DISK])] if request.disk is not None else []
    disks += [(extra.disk, number) for number, extra in enumerate(request.extra, start=numbers.get(FileRole.EXTRA, 0))]
    for count, (disk, number) in enumerate(disks):
        # d: never a copy-on-write file, whose header (which a guest may have written) would name another file to read.
        yield f"ubd{count}{'r' if disk.read_only else ''}d={reopened(number)}"
    yield from ("root=/dev/ubda" if request.disk is not None else "root=/dev/ram0", "console=tty0")
    yield cmdline


MONITOR: Final = Uml()
