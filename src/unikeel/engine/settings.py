"""What a container is created with: the options of ``create`` and ``run``, and what is stored of them."""

from __future__ import annotations

from unikeel.lean import Final
from unikeel.model.image_fields import GuestConfig
from unikeel.model.volumes import Volume
from unikeel.network.ports import Port
from unikeel.values import NamedTuple

_MIB: Final = 1 << 20


class Options(NamedTuple):
    """The options of a new container. Zero or empty: the image's or the configuration's value.

    ``memory`` is in bytes; ``boot_files`` is ``auto``, ``cache``, ``shared-view``, ``view`` or ``copy``; ``network`` is ``user``,
    ``none``, or a network of CNI's: the path of its configuration or its name; ``annotations`` override the image's.
    """

    name: str = ""
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    memory: int = 0
    cpus: int = 0
    monitor: str = ""
    boot_files: str = ""
    ports: tuple[Port, ...] = ()
    network: str = ""
    machine: str = ""
    accel: str = ""
    sandbox: bool = True
    auto_remove: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    #: The guest type of an image that is no unikernel image, and its kernel: ``default``, or a path in the image.
    guest: str = ""
    kernel: str = ""
    #: Directories and files of the host that the guest gets.
    volumes: tuple[Volume, ...] = ()


class Settings(NamedTuple):
    """What a container's record keeps: everything that a start needs, decided when it was created."""

    guest: GuestConfig
    args: tuple[str, ...]
    env: tuple[str, ...]
    memory_mib: int
    cpus: int
    boot_files: str
    ports: tuple[Port, ...]
    network: str
    machine: str
    accel: str
    sandbox: bool
    disk: bool
    initrd: bool
    #: What the guest's root file system is (:class:`unikeel.model.rootfs.Rootfs`), and why; empty in records of earlier versions.
    rootfs: str = ""
    rootfs_reason: str = ""
    #: What the program in the guest runs as, and where, for guests that can be told.
    uid: int = 0
    gid: int = 0
    workdir: str = ""
    #: Of a network ``cni``: where its configuration was found, and its text.
    cni_source: str = ""
    cni: str = ""
    #: By which file system a root of the kind ``shared`` is shared.
    share: str = ""
    volumes: tuple[Volume, ...] = ()
    #: How volumes reach the guest (:class:`unikeel.model.volumes.Way`), and by which file system, if by one of their own.
    way: str = "none"
    volumes_share: str = ""
    #: Where the image's own disk image is mounted as a further disk; empty: nowhere.
    image_disk: str = ""

    def to_json(self) -> dict[str, object]:
        """As the record stores it."""
        values: dict[str, object] = self._asdict()
        values["guest"] = self.guest._asdict()
        values["ports"] = [port._asdict() for port in self.ports]
        values["volumes"] = [volume._asdict() for volume in self.volumes]
        return values

    @classmethod
    def from_json(cls, values: dict[str, object]) -> Settings:
        """The inverse of :meth:`to_json`."""
        known = dict(values)
        guest, ports = known["guest"], known["ports"]
        known["guest"] = GuestConfig(**guest)  # type: ignore[arg-type]  # our own record, written by to_json
        known["ports"] = tuple(Port(**port) for port in ports)  # type: ignore[attr-defined]  # as above
        known["volumes"] = tuple(Volume(**volume) for volume in known.get("volumes", ()))  # type: ignore[attr-defined]  # as above
        for name in ("args", "env"):
            known[name] = tuple(known[name])  # type: ignore[arg-type]  # as above
        return cls(**known)  # type: ignore[arg-type]  # as above


def whole_mib(size: int) -> int:
    """Bytes in whole MiB, rounded up."""
    return -(-size // _MIB)
