"""What to launch, as a value: from a request, by pure functions, to a plan that tests compare whole.

A plan names no file that it needs opened except the host's own (:attr:`LaunchPlan.binds`): kernel, initrd, disk and sockets are open
descriptors. The process gets them in the order of :attr:`LaunchPlan.files`, the first as number 3.
"""

from __future__ import annotations

from enum import Enum

from unikeel.lean import Final
from unikeel.model.cpio import File
from unikeel.model.image_fields import GuestConfig
from unikeel.values import NamedTuple

#: The descriptor number of a plan's first file: 0, 1 and 2 are the monitor's own standard streams.
FIRST_FD: Final = 3
#: What a container's exit status is if the monitor failed, not the guest: as ``docker run`` has it.
MONITOR_FAILED: Final = 125
#: What guests of Solo5 for virtio and of Unikraft write to isa-debug-exit at their end.
SOLO5_ENDED: Final = 41


class FileRole(Enum):
    """What a descriptor is."""

    KERNEL = "kernel"
    INITRD = "initrd"
    DISK = "disk"
    #: The read-only image beneath a qcow2 disk.
    BACKING = "backing"
    #: A connected unix stream socket whose other end is a user-mode network helper (four bytes of length before each frame); or a tap.
    NET = "net"
    #: /dev/vhost-net, open for one queue of a tap.
    VHOST = "vhost"
    #: The monitor's own configuration, as a file in memory (:attr:`LaunchPlan.config`).
    CONFIG = "config"
    #: A listening unix stream socket for QMP.
    QMP = "qmp"
    #: A listening unix stream socket for requests by HTTP.
    API = "api"
    #: A listening unix stream socket for the guest's console; the runtime connects before it starts the monitor.
    CONSOLE = "console"
    #: The guest's further disks (:class:`Attached`), one after the other; what lies beneath a qcow2 one follows it.
    EXTRA = "extra"
    #: What is shared with the guest (:class:`Share`), one after the other and after everything else.
    SHARE = "share"


class PlanFile(NamedTuple):
    """One descriptor that the monitor gets. A file must be open in just the mode that ``writable`` says."""

    role: FileRole
    writable: bool


class ExitRule(Enum):
    """How a monitor's exit status maps to the guest's."""

    #: QEMU's isa-debug-exit: a guest that writes v makes QEMU exit with 2v+1; an orderly power-off is 0.
    DEBUG_EXIT = "debug-exit"
    #: The same device as Solo5 for virtio and Unikraft use it: they write 41 at an orderly end, whatever their program's status was (Solo5,
    #: bindings/virtio/platform.c; Unikraft writes 42 after a crash).
    SOLO5_EXIT = "solo5-exit"
    #: The monitor's status is the guest's.
    SAME = "same"


class Control(Enum):
    """How a monitor is talked to."""

    QMP = "qmp"
    #: Cloud Hypervisor's HTTP API.
    HTTP = "http"
    #: User-mode Linux's management console, a datagram socket in the sandbox.
    MCONSOLE = "mconsole"
    #: Signals only.
    NONE = "none"


class Console(Enum):
    """How a monitor has its guest's console."""

    #: It accepts connections on the descriptor :attr:`FileRole.CONSOLE`.
    SOCKET = "socket"
    #: Its own standard input and output.
    STDIO = "stdio"


class LaunchPlan(NamedTuple):
    """All that is needed to start one monitor."""

    #: The first is the absolute path of the monitor's program.
    argv: tuple[str, ...]
    files: tuple[PlanFile, ...]
    #: Device nodes of the host that the monitor opens.
    devices: tuple[str, ...]
    environment: tuple[str, ...]
    #: The guest's RAM in MiB; the monitor's own needs come on top.
    memory_mib: int
    #: Paths of the host that the monitor needs, read-only: its program, libraries, firmware.
    binds: tuple[str, ...]
    exit: ExitRule
    #: The guest obeys the power button.
    powerdown: bool
    control: Control = Control.QMP
    console: Console = Console.SOCKET
    #: It opens kernel, initrd and disk anew by their numbers, so that their owners and modes must let its user do so.
    reopens: bool = False
    #: The content of :attr:`FileRole.CONFIG`.
    config: bytes = b""
    #: Bytes of files that the monitor may write, in memory, beneath ``/tmp``; what is in them may be executed. 0: none.
    scratch: int = 0
    #: System calls that it needs beyond those that every monitor may make.
    syscalls: tuple[str, ...] = ()

    def fd_of(self, role: FileRole) -> int:
        """The descriptor number of the file with this role. :raise KeyError: there is none."""
        for index, file in enumerate(self.files):
            if file.role is role:
                return FIRST_FD + index
        raise KeyError(role)


class DiskSpec(NamedTuple):
    """The guest's disk. ``backing``: a second descriptor, of a raw image that the qcow2 file lies over."""

    #: ``raw`` or ``qcow2``; never found out by looking.
    format: str
    backing: bool = False
    read_only: bool = False
    #: The disk is a block device of the host, not a file.
    device: bool = False
    #: What the guest sees as the disk's serial number, at most 20 characters.
    id: str = "rootfs"


class Share(NamedTuple):
    """A directory of the host that the guest may mount. Its descriptor is, with ``virtiofs``, a connection to its file server, with ``9p`` the directory."""

    #: What the guest asks for it by.
    tag: str
    #: ``virtiofs`` or ``9p``.
    kind: str
    read_only: bool = False


class Attached(NamedTuple):
    """A further disk of the guest's, where it is to be mounted, and the file system in it, such as ``ext4``; without one, ``target`` is what the device is called."""

    disk: DiskSpec
    target: str
    file_system: str = "ext4"

    @property
    def files(self) -> tuple[PlanFile, ...]:
        """Its descriptors: itself, and what it lies over."""
        own = PlanFile(FileRole.EXTRA, not self.disk.read_only)
        return (own, PlanFile(FileRole.EXTRA, writable=False)) if self.disk.backing else (own,)


class Mounted(NamedTuple):
    """One volume of the guest's: an entry of the directory that is shared as :data:`VOLUMES`, or copied into the initrd."""

    name: str
    target: str
    read_only: bool = False


#: The tag of the directory that is the guest's root; urunc's images know it by this one.
ROOT_SHARE: Final = "fs0"
#: The tag of the directory that has the guest's volumes.
VOLUMES: Final = "volumes"


class UserNet(NamedTuple):
    """User-mode networking as the guest sees it."""

    address: str
    #: Length of the network's prefix, in bits.
    prefix: int
    gateway: str
    #: An empty string: none.
    dns: str
    mac: str

    @property
    def netmask(self) -> str:
        """The dotted mask of the prefix."""
        return netmask(self.prefix)


class TapNet(NamedTuple):
    """A tap device, and what the guest behind it is told. There is an IPv4 address or an IPv6 one, or both."""

    #: Empty: none of IPv4.
    address: str
    #: Length of the network's prefix, in bits.
    prefix: int
    gateway: str
    #: An empty string: none.
    dns: str
    mac: str
    #: The tap's name in the monitor's network namespace.
    name: str
    #: The largest packet in bytes; 0: the guest's default.
    mtu: int = 0
    #: Its IPv6 address, if it has one; a guest that cannot be told finds one by router advertisements.
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    #: How many descriptors the tap has, one for each of the card's queues.
    queues: int = 1
    #: The kernel's own back end serves the card, by as many descriptors.
    vhost: bool = False

    @property
    def netmask(self) -> str:
        """The dotted mask of the prefix."""
        return netmask(self.prefix)


Net = UserNet | TapNet


def netmask(prefix: int) -> str:
    """The dotted IPv4 mask with ``prefix`` ones, 0 to 32."""
    bits = 0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF
    return ".".join(str(bits >> shift & 0xFF) for shift in (24, 16, 8, 0))


class OwnInit(NamedTuple):
    """What turns an ordinary image into a guest: our init's program, and drivers (file name, content) in the order of loading."""

    program: bytes
    modules: tuple[tuple[str, bytes], ...] = ()


class LaunchRequest(NamedTuple):
    """What is asked for."""

    #: The container's name, for the monitor's title.
    name: str
    guest: GuestConfig
    #: Program and arguments; empty: the image's command line.
    args: tuple[str, ...]
    #: ``NAME=value`` each.
    env: tuple[str, ...]
    memory_mib: int
    vcpus: int
    #: ``microvm`` or ``q35``.
    machine: str
    #: ``kvm`` or ``tcg``.
    accel: str
    disk: DiskSpec | None = None
    initrd: bool = False
    network: Net | None = None
    hostname: str = "unikeel"
    #: The guest's processors do not run before they are told to.
    halted: bool = False
    #: The initrd is no file system, but something that the guest reads by itself (:class:`unikeel.guests.contract.Added`).
    retained: bool = False
    #: What the program in the guest runs as, and where; guests that cannot be told run it as they always do.
    uid: int = 0
    gid: int = 0
    workdir: str = "/"
    #: The guest boots with our init and what it is told, instead of an init of the image's.
    own: OwnInit | None = None
    #: At most one for the root and one for volumes.
    shares: tuple[Share, ...] = ()
    #: What is in the share of volumes, for our own init.
    volumes: tuple[Mounted, ...] = ()
    #: Files that are added to an initrd that is the guest's root, or that our own init mounts from there.
    added: tuple[tuple[str, File], ...] = ()
    #: Disks beyond that of the root, in the order in which the guest finds them.
    extra: tuple[Attached, ...] = ()

    @property
    def virtio_console(self) -> bool:
        """The guest's console is virtio's, not a serial port."""
        return self.guest.console == "virtio"

    def share(self, tag: str) -> Share | None:
        """The share with this tag."""
        return next((share for share in self.shares if share.tag == tag), None)


def decode_exit(rule: ExitRule, monitor_status: int, *, stderr_empty: bool) -> int:
    """The guest's exit status, 0 to 255.

    :param monitor_status: as :func:`os.waitstatus_to_exitcode` has it: negative for death by that signal.
    :param stderr_empty: the monitor did not complain (:meth:`unikeel.monitors.contract.Monitor.complaint`). It decides one case: QEMU's status 1 is
        both a guest that wrote 0 and QEMU's own failure.
    """
    if monitor_status < 0:
        return 128 - monitor_status
    if rule is ExitRule.SAME or monitor_status == 0:
        return monitor_status
    if monitor_status % 2 == 0 or (monitor_status == 1 and not stderr_empty):
        return MONITOR_FAILED
    code = (monitor_status - 1) // 2
    return 0 if rule is ExitRule.SOLO5_EXIT and code == SOLO5_ENDED else code
