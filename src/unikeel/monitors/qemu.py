"""QEMU 7.2 and later, on the machines ``microvm`` and ``q35``: the command line, as a pure function.

Everything the guest uses comes by descriptor: kernel and initrd as ``/proc/self/fd/N`` (QEMU opens that anew, so the file's mode must let the
monitor's user read it), disks through descriptor sets (``-add-fd``), sockets as they are. Disks are given node by node, the format always
named and the backing node explicit, so that no header of a file that a guest wrote decides what is opened. Options: qemu(1);
``-blockdev`` takes JSON, whose strings need no escapes for commas.
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.guests.contract import Guest
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.plan import FIRST_FD, DiskSpec, FileRole, LaunchPlan, LaunchRequest, Net, PlanFile, Share, TapNet
from unikeel.monitors.contract import Facts, Traits
from unikeel.values import NamedTuple

#: ``-netdev stream`` came with 7.2.
LEAST_VERSION: Final = (7, 2)
#: The most that QEMU keeps of translated code, in MiB. Its own default is up to 1 GiB, which the sandbox's memory limit would kill.
TRANSLATION_CACHE: Final = 64
#: Guest RAM in MiB.
MEMORY_RANGE: Final = (8, 1 << 20)
#: microvm's limit is 288, q35's is higher.
VCPUS_LIMIT: Final = 255

#: ``auto-kernel-cmdline`` would add words to the guest's command line. The devices switched off are attack surface without a use here.
_MACHINES: Final = {
    "microvm": "microvm,auto-kernel-cmdline=off",
    "q35": "q35,sata=off,smbus=off,usb=off,vmport=off",
}
_TRANSPORTS: Final = {"microvm": "device", "q35": "pci"}
#: A guest gets what the processor can (kvm) or what QEMU can emulate (tcg), so that kernels built for newer processors run.
ACCELERATORS: Final = {"kvm": ("kvm", "host"), "tcg": (f"tcg,tb-size={TRANSLATION_CACHE}", "max")}
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_ENVIRONMENT: Final = ("HOME=/", "LC_ALL=C", "PATH=/usr/bin:/bin")
_REMARKS: Final = (": info: ", ": warning: ", ": terminating on signal ")
_ORDER: Final = tuple(FileRole)
#: What QEMU does with files for a guest beyond what it needs for itself (its fsdev ``local``).
_SERVING: Final = (
    "chmod", "fchmod", "fchmodat", "fchown", "fchownat", "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "lgetxattr",
    "link",
    "linkat", "listxattr", "llistxattr", "lremovexattr", "lsetxattr", "mkdirat", "mknodat", "removexattr", "renameat", "renameat2",
    "setxattr", "symlinkat", "utimensat",
)  # fmt: skip


class Qemu:
    """The monitor ``qemu``."""

    name = "qemu"
    traits = Traits(
        networks=("user", "tap"),
        disks=("raw", "qcow2"),
        shared=("virtiofs", "9p"),
        accels=("kvm", "tcg"),
        queues=True,
        halts=True,
        reopens=False,
        virtio_console=True,
    )

    def probe(self, path: str, cache: str) -> Facts:
        """See :meth:`unikeel.monitors.contract.Monitor.probe`."""
        from unikeel.monitors.host import qemu_facts

        return qemu_facts(path, cache)

    def plan(self, request: LaunchRequest, guest: Guest, facts: Facts) -> LaunchPlan:
        """See :meth:`unikeel.monitors.contract.Monitor.plan`."""
        _check(request)
        files = _files(request)
        # Of several of one role, the first.
        numbers = {file.role: FIRST_FD + index for index, file in reversed(tuple(enumerate(files)))}
        wish = request.guest.powerdown
        return LaunchPlan(
            argv=(facts.path, *_arguments(request, guest, numbers)),
            files=files,
            devices=("/dev/kvm",) if request.accel == "kvm" else (),
            environment=_ENVIRONMENT,
            memory_mib=request.memory_mib,
            binds=facts.binds,
            exit=guest.exit,
            powerdown=guest.powerdown if wish is None else wish,
            syscalls=_SERVING if any(share.kind == "9p" for share in request.shares) else (),
        )

    def complaint(self, stderr: bytes) -> str:
        """QEMU's last line that is marked as an error, else its last one that is no mere remark (it says that it waits for the console,
        and who ended it). At most 1000 characters, without QEMU's own name before them."""
        lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
        said = [line for line in lines if line and not any(remark in line for remark in _REMARKS)]
        marked = [line for line in said if ": error: " in line]
        return (marked or said or [""])[-1].removeprefix("qemu-system-x86_64: ").removeprefix("error: ")[:1000]


def option_value(value: str) -> str:
    """A value inside QEMU's key=value syntax, where a comma is written twice.

    :raises InvalidArgument: it contains a line break or a NUL.
    """
    if any(char in value for char in "\0\n\r"):
        raise InvalidArgument(f"{quote(value)} cannot be given to QEMU: it contains a line break or a NUL")
    return value.replace(",", ",,")


def _check(request: LaunchRequest) -> None:
    least, most = MEMORY_RANGE
    if not least <= request.memory_mib <= most:
        raise InvalidArgument(f"a guest's memory must be {least} to {most} MiB, not {request.memory_mib}")
    if not 1 <= request.vcpus <= VCPUS_LIMIT:
        raise InvalidArgument(f"a guest must have 1 to {VCPUS_LIMIT} processors, not {request.vcpus}")
    for what, value, known in (("machine", request.machine, _MACHINES), ("accelerator", request.accel, ACCELERATORS)):
        if value not in known:
            raise InvalidArgument(f"QEMU's {what} {quote(value)} is unknown here", f"known: {', '.join(known)}")
    if request.guest.type == "linux" and (request.machine, request.accel) == ("microvm", "tcg"):
        raise InvalidArgument(
            "without KVM, Linux does not come up on QEMU's machine microvm whenever it cannot measure its clock there",
            "leave --machine and monitor.machine out, or say q35",
        )
    for disk in (request.disk, *(extra.disk for extra in request.extra)):
        if disk is not None:
            _check_disk(disk)


def _check_disk(disk: DiskSpec) -> None:
    if disk.format not in ("raw", "qcow2"):
        raise InvalidArgument(f"disk format {quote(disk.format)} is unknown", "known: raw, qcow2")
    if disk.backing and disk.format != "qcow2":
        raise InvalidArgument("a raw disk cannot have a backing image")
    if len(disk.id) > 20:
        raise InvalidArgument(
            f"disk id {quote(disk.id)} is too long", "a virtio disk's serial number has at most 20 characters"
        )


def _files(request: LaunchRequest) -> tuple[PlanFile, ...]:
    """The descriptors of a request, in the order of :class:`FileRole`."""
    writable = {FileRole.KERNEL: False, FileRole.QMP: True, FileRole.CONSOLE: True}
    if request.initrd:
        writable[FileRole.INITRD] = False
    if request.disk is not None:
        writable[FileRole.DISK] = not request.disk.read_only
        if request.disk.backing:
            writable[FileRole.BACKING] = False
    if request.network is not None:
        writable[FileRole.NET] = True
        if isinstance(request.network, TapNet) and request.network.vhost:
            writable[FileRole.VHOST] = True
    queues = request.network.queues if isinstance(request.network, TapNet) else 1
    times = {FileRole.NET: queues, FileRole.VHOST: queues}
    files = [PlanFile(role, writable[role]) for role in _ORDER if role in writable for _ in range(times.get(role, 1))]
    files += [file for extra in request.extra for file in extra.files]
    return (*files, *(PlanFile(FileRole.SHARE, writable=share.kind == "virtiofs") for share in request.shares))


def _arguments(request: LaunchRequest, guest: Guest, numbers: dict[FileRole, int]) -> Iterator[str]:
    cmdline = guest.cmdline(request)
    accelerator, processor = ACCELERATORS[request.accel]
    transport = _TRANSPORTS[request.machine]
    yield from ("-name", f"guest={option_value(request.name)}")
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", _SANDBOX)
    if request.halted:
        yield "-S"
    memory = ",memory-backend=memory" if any(share.kind == "virtiofs" for share in request.shares) else ""
    yield from ("-machine", _MACHINES[request.machine] + memory, "-accel", accelerator, "-cpu", processor)
    yield from ("-m", f"{request.memory_mib}M", "-smp", str(request.vcpus))
    if any(share.kind == "virtiofs" for share in request.shares):
        # The file server reads and writes the guest's memory.
        yield from ("-object", f"memory-backend-memfd,id=memory,size={request.memory_mib}M,share=on")
    yield from (
        "-chardev",
        f"socket,id=qmp,fd={numbers[FileRole.QMP]},server=on,wait=off",
        "-qmp",
        "chardev:qmp",
    )
    # Waiting for the console's other end (it has connected already) is what keeps the guest's first line from being lost.
    yield from (
        "-chardev",
        f"socket,id=console,fd={numbers[FileRole.CONSOLE]},server=on,wait=on",
    )
    yield from _console(transport) if request.virtio_console else ("-serial", "chardev:console")
    yield from _disks(request, transport, numbers)
    if request.network is not None:
        yield from _network(request.network, transport, numbers, modern=guest.modern)
    for number, share in enumerate(request.shares, start=numbers.get(FileRole.SHARE, 0)):
        yield from _share(share, transport, number)
    yield from ("-device", "isa-debug-exit,iobase=0x501,iosize=2")
    yield from ("-kernel", f"/proc/self/fd/{numbers[FileRole.KERNEL]}")
    if request.initrd:
        yield from ("-initrd", f"/proc/self/fd/{numbers[FileRole.INITRD]}")
    if cmdline:
        yield from ("-append", cmdline)


def _console(transport: str) -> Iterator[str]:
    """A virtio console. With one port there are no messages about ports: it is there as soon as its driver is."""
    yield from ("-device", f"virtio-serial-{transport},max_ports=1", "-device", "virtconsole,chardev=console")


class _Nodes(NamedTuple):
    """What a disk's nodes and those beneath it are called, and which sets and descriptors they are."""

    disk: str
    base: str
    sets: tuple[int, int]
    numbers: tuple[int, int]


def _disks(request: LaunchRequest, transport: str, numbers: dict[FileRole, int]) -> Iterator[str]:
    """All disks, in the order in which the guest is to find them."""
    found = []
    if request.disk is not None:
        own = (numbers[FileRole.DISK], numbers.get(FileRole.BACKING, -1))
        found.append((request.disk, _Nodes("disk", "base", (1, 2), own)))
    number = numbers.get(FileRole.EXTRA, 0)
    for count, extra in enumerate(request.extra, start=1):
        nodes = _Nodes(f"extra{count}", f"base{count}", (2 * count + 1, 2 * count + 2), (number, number + 1))
        found.append((extra.disk, nodes))
        number += len(extra.files)
    for disk, nodes in found:
        yield from _disk(disk, transport, nodes)


def _disk(disk: DiskSpec, transport: str, nodes: _Nodes) -> Iterator[str]:
    """The disk's nodes, bottom up. ``locking`` is off: who may use a snapshot is decided by the snapshot store, not by QEMU."""
    if disk.backing:
        base = f"{nodes.base}-file"
        yield from _file_node(base, nodes.sets[1], nodes.numbers[1], read_only=True, device=False)
        yield from _node({"driver": "raw", "node-name": nodes.base, "read-only": True, "file": base})
    own = f"{nodes.disk}-file"
    yield from _file_node(own, nodes.sets[0], nodes.numbers[0], read_only=disk.read_only, device=disk.device)
    top: dict[str, object] = {"driver": disk.format, "node-name": nodes.disk, "read-only": disk.read_only}
    if not disk.read_only:
        top["discard"] = "unmap"
    top["file"] = own
    if disk.format == "qcow2":
        # null: no backing, whatever the header says.
        top["backing"] = nodes.base if disk.backing else None
    yield from _node(top)
    yield from ("-device", f"virtio-blk-{transport},drive={nodes.disk},serial={option_value(disk.id)}")


def _file_node(name: str, fd_set: int, number: int, *, read_only: bool, device: bool) -> Iterator[str]:
    """One descriptor as a block node.

    Through the host's page cache, since not every file system below takes O_DIRECT and containers of one image share what is cached of
    its base; the guest's flushes become fsync. Threads, since the sandbox has no io_uring.
    """
    yield from ("-add-fd", f"fd={number},set={fd_set}")
    node: dict[str, object] = {
        "driver": "host_device" if device else "file",
        "node-name": name,
        "filename": f"/dev/fdset/{fd_set}",
        "read-only": read_only,
        "aio": "threads",
        "locking": "off",
    }
    if not read_only:
        node["discard"] = "unmap"
    yield from _node(node)


def _node(options: dict[str, object]) -> tuple[str, str]:
    import json

    return ("-blockdev", json.dumps(options))


def _share(share: Share, transport: str, number: int) -> Iterator[str]:
    """A shared directory: served by another process, or by QEMU itself, which then is what its own user may be and no more."""
    tag = option_value(share.tag)
    if share.kind == "virtiofs":
        yield from ("-chardev", f"socket,id={tag},fd={number}")
        yield from ("-device", f"vhost-user-fs-{transport},chardev={tag},tag={tag},queue-size=1024")
        return
    read_only = ",readonly=on" if share.read_only else ""
    # multidevs: other file systems are mounted beneath it, whose numbers of files may be the same.
    yield from ("-fsdev", f"local,id={tag},path=/proc/self/fd/{number},security_model=none,multidevs=remap{read_only}")
    yield from ("-device", f"virtio-9p-{transport},fsdev={tag},mount_tag={tag}")


def _network(network: Net, transport: str, numbers: dict[FileRole, int], *, modern: bool) -> Iterator[str]:
    """A tap's descriptors, or a stream of frames to the helper process. ``romfile=``: no boot ROM, which would have to be installed and would be run."""
    number = numbers[FileRole.NET]
    if isinstance(network, TapNet):
        vhost = f",vhost=on,{_listed('vhostfd', numbers[FileRole.VHOST], network.queues)}" if network.vhost else ""
        yield from ("-netdev", f"tap,id=net0,{_listed('fd', number, network.queues)}{vhost}")
    else:
        yield from ("-netdev", f"stream,id=net0,server=off,addr.type=fd,addr.str={number}")
    options = [f"virtio-net-{transport}", "netdev=net0", f"mac={option_value(network.mac)}"]
    if isinstance(network, TapNet) and network.mtu:
        options.append(f"host_mtu={network.mtu}")
    if isinstance(network, TapNet) and network.queues > 1:
        options.append("mq=on")
        # Two for each queue, one for changes of the configuration, one for control.
        options += [f"vectors={2 * network.queues + 2}"] * (transport == "pci")
    if transport == "pci":
        options += ["disable-legacy=on"] * modern + ["romfile="]
    yield from ("-device", ",".join(options))


def _listed(option: str, first: int, queues: int) -> str:
    """One descriptor, or several that follow each other."""
    numbers = ":".join(str(first + queue) for queue in range(queues))
    return f"{option}s={numbers}" if queues > 1 else f"{option}={numbers}"


MONITOR: Final = Qemu()
