"""Linux guests: the kernel command line, in the order and words that urunc gives it, plus ``quiet`` and the DNS server.

``panic=-1 console=ttyS0 quiet ROOT NETWORK VARIABLES… init=PROGRAM -- ARGUMENTS…``

What console and root disk are called depends on the monitor. With our own init, which is told the rest by a file, the line is only ``… quiet rdinit=/init``.

The kernel hands ``NAME=value`` words that it does not know to init as environment, and everything after ``--`` as arguments
(Documentation/admin-guide/kernel-parameters.rst). Its splitting (lib/cmdline.c, next_arg) knows white space and double quotes, and
nothing that escapes a double quote, so what cannot be said is refused instead of being garbled. An init named ``urunit`` reads the
line itself and expects single quotes. Variables that are also kernel parameters are read by the kernel, too: ``loglevel=7`` undoes ``quiet``.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.guests import own_init, urunit
from unikeel.guests.contract import Added, Guest, Solo5Devices, told, within
from unikeel.lean import Final
from unikeel.model import cpio
from unikeel.model.names import quote
from unikeel.model.plan import ROOT_SHARE, ExitRule, LaunchRequest, Net
from unikeel.model.rootfs import BlockSupport
from unikeel.values import NamedTuple

#: COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h) without its NUL.
CMDLINE_LIMIT: Final = 2047
#: The kernel panics over more than 32 of each (CONFIG_INIT_ENV_ARG_LIMIT): HOME, TERM and the program itself count.
VARIABLES_LIMIT: Final = 30
ARGUMENTS_LIMIT: Final = 31


class _Board(NamedTuple):
    """What of a monitor's machine the kernel must be told: console, root disk, and words of its own."""

    console: str = "ttyS0"
    disk: str = "/dev/vda"
    more: tuple[str, ...] = ()


#: As urunc has them.
_ROOT_FLAGS: Final = "trans=virtio,version=9p2000.L,msize=5000000,cache=mmap,posixacl"
#: Firecracker ends when the guest resets by the keyboard controller, which no firmware of its tells the kernel (docs/getting-started.md).
_BOARDS: Final = {"firecracker": _Board(more=("reboot=k",)), "uml": _Board("tty0", "/dev/ubda")}
_USUAL: Final = _Board()
#: The first virtio console (drivers/tty/hvc).
VIRTIO_CONSOLE: Final = "hvc0"

_SPACES: Final = frozenset(b" \t\n\v\f\r\xa0")
_HOSTNAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")


class Linux:
    """The guest type ``linux``."""

    name = "linux"
    block = BlockSupport(supported=True, file_systems=("ext2", "ext3", "ext4"))
    initrd = True
    network = True
    addressed = True
    arguments = True
    environment = True
    shared = ("virtiofs", "9p")
    modern = False
    exit = ExitRule.DEBUG_EXIT
    devices = Solo5Devices()
    powerdown = True

    def machine(self, accel: str, wish: str) -> str:
        """q35, unless the image wants microvm and there is KVM.

        Kernels in images are made for virtio over PCI, which is not a given on microvm. And microvm has neither HPET nor PM timer:
        without KVM's clock a kernel there hangs before its first user process whenever it cannot calibrate the TSC, which a busy host caused in
        every eighth boot (measured, Linux 6.1 under TCG).
        """
        return "microvm" if wish == "microvm" and accel == "kvm" else "q35"

    def added(self, request: LaunchRequest) -> Added:
        """Our own init with all that it needs; or ``urunit``'s configuration, in an archive after the image's initrd, or as the initrd where the image has none."""
        if request.own is not None:
            console = f"/dev/{VIRTIO_CONSOLE}" if request.virtio_console else ""
            return Added(archive=own_init.archive(request, _board(request).disk, console))
        files = dict(request.added)
        if _is_configured(request):
            content = urunit.configuration(request)
            if not request.initrd:
                return Added(raw=content)
            files[urunit.PATH] = cpio.File(content, urunit.MODE)
        return Added(archive=cpio.archive(files)) if files else Added()

    def cmdline(self, request: LaunchRequest) -> str:
        """The kernel command line, at most 2047 bytes. :raises InvalidArgument: as well if nobody in the guest could be told of a further disk."""
        if request.extra and request.own is None and not _is_configured(request):
            raise InvalidArgument(f"nothing in the guest could be told to mount a disk at {request.extra[0].target}")
        return within(" ".join(_words(request)), CMDLINE_LIMIT, self.name)


def _board(request: LaunchRequest) -> _Board:
    board = _BOARDS.get(request.guest.monitor, _USUAL)
    return board._replace(console=VIRTIO_CONSOLE) if request.virtio_console else board


def _words(request: LaunchRequest) -> Iterator[str]:
    board = _board(request)
    yield from ("panic=-1", f"console={board.console}", *board.more, "quiet")
    if request.own is not None:
        yield "rdinit=/init"
        return
    yield from _root(request, board)
    network = told(request)
    if network is not None:
        yield _ip(network, request.hostname)
    if _is_configured(request):
        yield from _urunit(request)
    else:
        yield from _variables(request)
    yield from _init(request)


def _is_configured(request: LaunchRequest) -> bool:
    """Whether ``urunit`` gets a configuration file. Behind an initrd that only loads the disk it would not find one: it is told by the line then."""
    is_behind_loader = request.disk is not None and request.initrd and not request.retained
    return urunit.is_urunit(request) and not is_behind_loader


def _urunit(request: LaunchRequest) -> Iterator[str]:
    """Where its configuration is (:attr:`LaunchRequest.retained`: it is the initrd), and whether it must make a route to the gateway itself."""
    if request.retained:
        yield from ("retain_initrd", f"URUNIT_CONFIG={urunit.RETAINED}")
    else:
        yield f"URUNIT_CONFIG={urunit.PATH}"
    network = told(request)
    if network is not None and not reaches_gateway(network):
        yield "URUNIT_DEFROUTE=1"


def reaches_gateway(network: Net) -> bool:
    """Whether the gateway is in the guest's own network."""
    import ipaddress

    own = ipaddress.IPv4Interface(f"{network.address}/{network.prefix}").network
    return ipaddress.IPv4Address(network.gateway) in own


def _variables(request: LaunchRequest) -> Iterator[str]:
    if len(request.env) > VARIABLES_LIMIT:
        raise InvalidArgument(f"Linux takes at most {VARIABLES_LIMIT} environment variables, not {len(request.env)}")
    for variable in request.env:
        if not variable.partition("=")[0] or "=" not in variable:
            raise InvalidArgument(f"{quote(variable)} is not an environment variable", "write NAME=value")
        yield _double_quoted(variable)


def _root(request: LaunchRequest, board: _Board) -> Iterator[str]:
    """A disk is the root even if there is an initrd: that one only loads it (org.unikeel.rootfs=block)."""
    share = request.share(ROOT_SHARE)
    if share is not None:
        yield from (f"root={share.tag}", "ro" if share.read_only else "rw", f"rootfstype={share.kind}")
        if share.kind == "9p":
            yield f"rootflags={_ROOT_FLAGS}"
    elif request.disk is not None:
        yield from (f"root={board.disk}", "ro" if request.disk.read_only else "rw")
    elif request.initrd and not request.retained:
        yield from ("root=/dev/ram0", "rw")


def _ip(network: Net, hostname: str) -> str:
    """``ip=ADDRESS::GATEWAY:MASK:HOST:eth0:off:DNS`` (Documentation/admin-guide/nfs/nfsroot.rst)."""
    if not hostname or len(hostname) > 63 or not _HOSTNAME.issuperset(hostname):
        raise InvalidArgument(f"{quote(hostname)} cannot be a host name", "use up to 63 letters, digits, '-' and '.'")
    dns = f":{network.dns}" if network.dns else ""
    return f"ip={network.address}::{network.gateway}:{network.netmask}:{hostname}:eth0:off{dns}"


def _init(request: LaunchRequest) -> Iterator[str]:
    argv = request.args or tuple(request.guest.cmdline.split())
    if not argv:
        return
    if len(argv) > ARGUMENTS_LIMIT + 1:
        raise InvalidArgument(f"Linux takes at most {ARGUMENTS_LIMIT} arguments, not {len(argv) - 1}")
    quoted = _single_quoted if urunit.is_urunit(request) else _double_quoted
    is_initrd_root = request.initrd and not request.retained and request.disk is None
    yield ("rdinit=" if is_initrd_root else "init=") + quoted(argv[0])
    if argv[1:]:
        yield "--"
        yield from map(quoted, argv[1:])


def _double_quoted(word: str) -> str:
    """A word as the kernel's own splitting gives it back unchanged. :raises InvalidArgument: there is no such form."""
    if _has_space(word) or not word:
        if '"' not in word:
            return f'"{word}"'
    elif not word.startswith('"') and not word.partition("=")[2].startswith('"') and word.count('"') % 2 == 0:
        return word
    raise InvalidArgument(
        f"{quote(word)} cannot be passed to Linux: its command line has no way to escape a double quote"
    )


def _single_quoted(word: str) -> str:
    if not _has_space(word) and word:
        return word
    if "'" in word:
        raise InvalidArgument(
            f"{quote(word)} cannot be passed to urunit: a single quote and a space do not go together"
        )
    return f"'{word}'"


def _has_space(word: str) -> bool:
    """Whether the kernel sees white space in it: byte by byte, with Latin-1's no-break space (lib/ctype.c), so in ``à``, too."""
    return not _SPACES.isdisjoint(word.encode(errors="surrogateescape"))


GUEST: Final[Guest] = Linux()
