"""What a guest kind must tell the rest of the program. Implementations are stateless and pure."""

from __future__ import annotations

from unikeel.errors import InvalidArgument
from unikeel.lean import Protocol
from unikeel.model.plan import ExitRule, LaunchRequest, Net
from unikeel.model.rootfs import BlockSupport
from unikeel.values import NamedTuple


class Solo5Devices(NamedTuple):
    """Names in Solo5's manifest; empty: it is no guest of Solo5's monitors."""

    net: str = ""
    block: str = ""


class Added(NamedTuple):
    """What a guest wants to find in its initrd beyond the image's: an archive after that, or, of a guest that has no other, the whole of it."""

    #: A cpio archive (:mod:`unikeel.model.cpio`).
    archive: bytes = b""
    #: Bytes that are the initrd, of no format that the kernel unpacks.
    raw: bytes = b""


class Guest(Protocol):
    """One kind of guest."""

    @property
    def name(self) -> str:
        """The type as images name it."""

    @property
    def block(self) -> BlockSupport:
        """What it can do with a disk."""

    @property
    def initrd(self) -> bool:
        """It can use an initrd."""

    @property
    def network(self) -> bool:
        """It can use a network interface."""

    @property
    def addressed(self) -> bool:
        """It is told its network settings at boot, so that it has a working network without being asked for one."""

    @property
    def arguments(self) -> bool:
        """Arguments reach it. If not, they are dropped, and the front end says so for those that a user gave."""

    @property
    def environment(self) -> bool:
        """Environment variables reach it. If not, they are dropped, and the front end says so for those that a user gave."""

    @property
    def shared(self) -> tuple[str, ...]:
        """The shared file systems that it can mount as its root, such as ``virtiofs``, best first."""

    @property
    def powerdown(self) -> bool:
        """It usually obeys a power button; the image's ``org.unikeel.powerdown`` overrules this."""

    @property
    def modern(self) -> bool:
        """Its drivers know only virtio's modern interface (virtio 1.0), so a card may not offer the older one."""

    @property
    def exit(self) -> ExitRule:
        """What QEMU's exit status says of it."""

    @property
    def devices(self) -> Solo5Devices:
        """What Solo5's manifest in its kernel calls its devices, where the image does not say."""

    def machine(self, accel: str, wish: str) -> str:
        """The machine to boot it on under ``kvm`` or ``tcg`` where the user does not say: ``microvm`` or ``q35``.

        :param wish: what the image says (:attr:`~unikeel.model.image_fields.GuestConfig.machine`), or an empty string.
        """

    def added(self, request: LaunchRequest) -> Added:
        """What it wants to find in its initrd, by the request as it was before there was any such thing.

        :raises InvalidArgument: something cannot be said in it.
        """

    def cmdline(self, request: LaunchRequest) -> str:
        """Its kernel command line.

        :raises InvalidArgument: an argument or variable cannot be said in it, or it is longer than the guest can take.
        """


def within(line: str, limit: int, guest: str) -> str:
    """``line``, if it is at most ``limit`` bytes and has no byte that would end it early. :raises InvalidArgument: if not."""
    if "\0" in line or "\n" in line:
        raise InvalidArgument(f"the command line of guest {guest} cannot contain a line break or a NUL")
    size = len(line.encode(errors="surrogateescape"))
    if size > limit:
        raise InvalidArgument(
            f"the command line of guest {guest} has {size} bytes; it takes at most {limit}",
            "give fewer arguments or variables",
        )
    return line


class Plain:
    """A guest that wants nothing more in its initrd."""

    def added(self, request: LaunchRequest) -> Added:
        """Nothing."""
        del request
        return Added()


def told(request: LaunchRequest) -> Net | None:
    """The network, if there is an IPv4 address to tell; a guest of IPv6 alone finds its own by router advertisements."""
    return request.network if request.network is not None and request.network.address else None


def joined(request: LaunchRequest) -> str:
    """The arguments with single spaces between them and no quotes, as urunc gives them; without any, the image's command line."""
    return " ".join(request.args) or request.guest.cmdline
