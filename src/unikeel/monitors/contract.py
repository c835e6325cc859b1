"""What a monitor must tell the rest of the program."""

from __future__ import annotations

from unikeel.guests.contract import Guest
from unikeel.lean import Protocol
from unikeel.model.plan import LaunchPlan, LaunchRequest
from unikeel.values import NamedTuple


class Facts(NamedTuple):
    """What is true of one monitor on this host."""

    #: Absolute path of its program.
    path: str
    version: tuple[int, ...]
    #: Paths of the host that it needs, read-only, its program among them.
    binds: tuple[str, ...]
    #: Which file the program is (path, size, time of change): differs once it is replaced.
    identity: str


class Traits(NamedTuple):
    """What a monitor supports."""

    #: ``user`` (frames over a socket) and ``tap``.
    networks: tuple[str, ...]
    #: Formats of disks.
    disks: tuple[str, ...]
    #: Shared file systems.
    shared: tuple[str, ...]
    #: What runs the guest's processors, ``kvm`` or ``tcg``; empty: the host's processor as in any process.
    accels: tuple[str, ...]
    #: It boots the image's kernel; if not, one of its own, whatever the image names.
    kernel: bool = True
    #: Its network card can have several queues.
    queues: bool = False
    #: Frames on its tap have no header of virtio's.
    bare_frames: bool = False
    #: It opens a tap by its name, in the network namespace that it is in.
    tap_by_name: bool = False
    #: It can be started with its guest's processors halted, and told later to let them run (by QMP).
    halts: bool = False
    #: It opens kernel, initrd and disks anew by their numbers, as its own user.
    reopens: bool = True
    #: It can give its guest a virtio console in place of a serial port.
    virtio_console: bool = False


class Monitor(Protocol):
    """One kind of monitor. Implementations are stateless; all but :meth:`probe` is pure."""

    @property
    def name(self) -> str:
        """As images name it."""

    @property
    def traits(self) -> Traits:
        """What it supports."""

    def probe(self, path: str, cache: str) -> Facts:
        """Find it on this host.

        :param path: its program, or an empty string to look in PATH.
        :param cache: a directory where what was found is kept, so that its program is asked once and not for every start; an
            empty string keeps nothing.
        :raises Unavailable: it is not installed, does not run, or is too old.
        """

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """What to launch. Pure: equal arguments give equal plans.

        :raises InvalidArgument: the request asks for something that cannot be.
        """

    def complaint(self, stderr: bytes) -> str:
        """The line of the monitor's standard error that tells why it failed; an empty string if it holds only remarks."""
