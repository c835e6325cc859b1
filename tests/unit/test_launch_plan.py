"""Launch plans, compared whole: from a request to argv, files, devices."""

from __future__ import annotations

import pytest

from unikeel import monitors
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import (
    MONITOR_FAILED,
    DiskSpec,
    ExitRule,
    FileRole,
    LaunchPlan,
    LaunchRequest,
    PlanFile,
    TapNet,
    UserNet,
    decode_exit,
)
from unikeel.monitors.contract import Facts
from unikeel.monitors.qemu import MONITOR, option_value

FACTS = Facts("/usr/bin/qemu-system-x86_64", (7, 2, 22), ("/usr/bin/qemu-system-x86_64", "/usr/lib"), "identity")
NET = UserNet("10.0.2.15", 24, "10.0.2.2", "10.0.2.3", "52:54:00:12:34:56")
HELLO = LaunchRequest(
    name="hello",
    guest=GuestConfig("generic", "qemu", "/boot/hello"),
    args=("say", "a b, c"),
    env=("A=1",),
    memory_mib=16,
    vcpus=1,
    machine="microvm",
    accel="tcg",
)
LINUX = HELLO._replace(
    name="web,1",
    guest=GuestConfig("linux", "qemu", "/boot/vmlinuz", initrd="/boot/initrd"),
    args=("/usr/sbin/nginx", "-g", "daemon off;"),
    memory_mib=512,
    vcpus=2,
    machine="q35",
)

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
COMMON = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", SANDBOX)
TCG = ("-accel", "tcg,tb-size=64", "-cpu", "max")
MICROVM = ("-machine", "microvm,auto-kernel-cmdline=off")
Q35 = ("-machine", "q35,sata=off,smbus=off,usb=off,vmport=off")
EXIT = ("-device", "isa-debug-exit,iobase=0x501,iosize=2")
ENVIRONMENT = ("HOME=/", "LC_ALL=C", "PATH=/usr/bin:/bin")


def sockets(qmp: int, console: int) -> tuple[str, ...]:
    return (
        *("-chardev", f"socket,id=qmp,fd={qmp},server=on,wait=off", "-qmp", "chardev:qmp"),
        *("-chardev", f"socket,id=console,fd={console},server=on,wait=on", "-serial", "chardev:console"),
    )


def test_a_unikernel_without_anything_on_microvm() -> None:
    assert monitors.plan(HELLO, FACTS) == LaunchPlan(
        argv=(
            "/usr/bin/qemu-system-x86_64",
            *("-name", "guest=hello"),
            *COMMON,
            *MICROVM,
            *TCG,
            *("-m", "16M", "-smp", "1"),
            *sockets(4, 5),
            *EXIT,
            *("-kernel", "/proc/self/fd/3", "-append", "say a b, c"),
        ),
        files=(PlanFile(FileRole.KERNEL, False), PlanFile(FileRole.QMP, True), PlanFile(FileRole.CONSOLE, True)),
        devices=(),
        environment=ENVIRONMENT,
        memory_mib=16,
        binds=FACTS.binds,
        exit=ExitRule.DEBUG_EXIT,
        powerdown=False,
    )


def test_linux_with_a_loader_a_raw_disk_and_a_network_on_q35() -> None:
    assert monitors.plan(LINUX._replace(initrd=True, disk=DiskSpec("raw"), network=NET), FACTS) == LaunchPlan(
        argv=(
            "/usr/bin/qemu-system-x86_64",
            *("-name", "guest=web,,1"),
            *COMMON,
            *Q35,
            *TCG,
            *("-m", "512M", "-smp", "2"),
            *sockets(7, 8),
            *("-add-fd", "fd=5,set=1"),
            "-blockdev",
            '{"driver": "file", "node-name": "disk-file", "filename": "/dev/fdset/1", "read-only": false, '
            '"aio": "threads", "locking": "off", "discard": "unmap"}',
            "-blockdev",
            '{"driver": "raw", "node-name": "disk", "read-only": false, "discard": "unmap", "file": "disk-file"}',
            *("-device", "virtio-blk-pci,drive=disk,serial=rootfs"),
            *("-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=6"),
            *("-device", "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile="),
            *EXIT,
            *("-kernel", "/proc/self/fd/3", "-initrd", "/proc/self/fd/4"),
            "-append",
            "panic=-1 console=ttyS0 quiet root=/dev/vda rw "
            "ip=10.0.2.15::10.0.2.2:255.255.255.0:unikeel:eth0:off:10.0.2.3 "
            'A=1 init=/usr/sbin/nginx -- -g "daemon off;"',
        ),
        files=(
            PlanFile(FileRole.KERNEL, False),
            PlanFile(FileRole.INITRD, False),
            PlanFile(FileRole.DISK, True),
            PlanFile(FileRole.NET, True),
            PlanFile(FileRole.QMP, True),
            PlanFile(FileRole.CONSOLE, True),
        ),
        devices=(),
        environment=ENVIRONMENT,
        memory_mib=512,
        binds=FACTS.binds,
        exit=ExitRule.DEBUG_EXIT,
        powerdown=True,
    )


def test_a_qcow2_disk_over_a_base_on_microvm_with_kvm() -> None:
    request = HELLO._replace(disk=DiskSpec("qcow2", backing=True, id="root,1"), accel="kvm", args=(), network=NET)
    assert monitors.plan(request, FACTS) == LaunchPlan(
        argv=(
            "/usr/bin/qemu-system-x86_64",
            *("-name", "guest=hello"),
            *COMMON,
            *MICROVM,
            *("-accel", "kvm", "-cpu", "host"),
            *("-m", "16M", "-smp", "1"),
            *sockets(7, 8),
            *("-add-fd", "fd=5,set=2"),
            "-blockdev",
            '{"driver": "file", "node-name": "base-file", "filename": "/dev/fdset/2", "read-only": true, '
            '"aio": "threads", "locking": "off"}',
            "-blockdev",
            '{"driver": "raw", "node-name": "base", "read-only": true, "file": "base-file"}',
            *("-add-fd", "fd=4,set=1"),
            "-blockdev",
            '{"driver": "file", "node-name": "disk-file", "filename": "/dev/fdset/1", "read-only": false, '
            '"aio": "threads", "locking": "off", "discard": "unmap"}',
            "-blockdev",
            '{"driver": "qcow2", "node-name": "disk", "read-only": false, "discard": "unmap", "file": "disk-file", '
            '"backing": "base"}',
            *("-device", "virtio-blk-device,drive=disk,serial=root,,1"),
            *("-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=6"),
            *("-device", "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56"),
            *EXIT,
            *("-kernel", "/proc/self/fd/3"),
        ),
        files=(
            PlanFile(FileRole.KERNEL, False),
            PlanFile(FileRole.DISK, True),
            PlanFile(FileRole.BACKING, False),
            PlanFile(FileRole.NET, True),
            PlanFile(FileRole.QMP, True),
            PlanFile(FileRole.CONSOLE, True),
        ),
        devices=("/dev/kvm",),
        environment=ENVIRONMENT,
        memory_mib=16,
        binds=FACTS.binds,
        exit=ExitRule.DEBUG_EXIT,
        powerdown=False,
    )


def test_an_initrd_alone() -> None:
    plan = monitors.plan(LINUX._replace(initrd=True, args=("/init",), env=()), FACTS)
    assert plan.argv[-6:] == (
        *("-kernel", "/proc/self/fd/3", "-initrd", "/proc/self/fd/4"),
        *("-append", "panic=-1 console=ttyS0 quiet root=/dev/ram0 rw rdinit=/init"),
    )
    assert [file.role for file in plan.files] == [FileRole.KERNEL, FileRole.INITRD, FileRole.QMP, FileRole.CONSOLE]


def test_a_read_only_block_device_is_a_host_device_that_nobody_writes() -> None:
    plan = monitors.plan(HELLO._replace(disk=DiskSpec("raw", read_only=True, device=True)), FACTS)
    nodes = [plan.argv[index + 1] for index, word in enumerate(plan.argv) if word == "-blockdev"]
    assert nodes == [
        '{"driver": "host_device", "node-name": "disk-file", "filename": "/dev/fdset/1", "read-only": true, '
        '"aio": "threads", "locking": "off"}',
        '{"driver": "raw", "node-name": "disk", "read-only": true, "file": "disk-file"}',
    ]
    assert PlanFile(FileRole.DISK, False) in plan.files


def test_a_qcow2_disk_without_a_base_opens_none_whatever_its_header_says() -> None:
    plan = monitors.plan(HELLO._replace(disk=DiskSpec("qcow2")), FACTS)
    assert plan.argv[plan.argv.index("-device") - 1].endswith('"backing": null}')


def device_of(plan: LaunchPlan, kind: str) -> str:
    return next(word for word in plan.argv if word.startswith(kind))


TAP = TapNet("10.88.0.7", 16, "10.88.0.1", "10.88.0.1", "52:54:00:12:34:56", "tap0", mtu=1400)


def test_a_tap_comes_as_a_descriptor_with_its_mtu() -> None:
    plan = monitors.plan(LINUX._replace(network=TAP), FACTS)
    assert device_of(plan, "tap,") == f"tap,id=net0,fd={plan.fd_of(FileRole.NET)}"
    assert device_of(plan, "virtio-net") == "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,host_mtu=1400,romfile="
    assert plan.argv[-1].startswith(
        "panic=-1 console=ttyS0 quiet ip=10.88.0.7::10.88.0.1:255.255.0.0:unikeel:eth0:off:10.88.0.1 "
    )


@pytest.mark.parametrize("kind", ["mewz", "hermit"])
def test_guests_that_know_the_modern_interface_only_get_no_other(kind: str) -> None:
    plan = monitors.plan(LINUX._replace(guest=GuestConfig(kind, "qemu", "/k"), network=TAP), FACTS)
    assert "disable-legacy=on" in device_of(plan, "virtio-net").split(",")


def test_a_unikernel_of_solo5_on_qemu_compared_whole() -> None:
    request = LINUX._replace(guest=GuestConfig("mirage", "qemu", "/k"), args=("-v",), network=TAP._replace(mtu=0))
    assert monitors.plan(request, FACTS) == LaunchPlan(
        argv=(
            "/usr/bin/qemu-system-x86_64",
            *("-name", "guest=web,,1"),
            *COMMON,
            *Q35,
            *TCG,
            *("-m", "512M", "-smp", "2"),
            *sockets(5, 6),
            *("-netdev", "tap,id=net0,fd=4"),
            *("-device", "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile="),
            *EXIT,
            *("-kernel", "/proc/self/fd/3", "-append", "--ipv4=10.88.0.7/16 --ipv4-gateway=10.88.0.1 -v"),
        ),
        files=(
            PlanFile(FileRole.KERNEL, False),
            PlanFile(FileRole.NET, True),
            PlanFile(FileRole.QMP, True),
            PlanFile(FileRole.CONSOLE, True),
        ),
        devices=(),
        environment=ENVIRONMENT,
        memory_mib=512,
        binds=FACTS.binds,
        exit=ExitRule.SOLO5_EXIT,
        powerdown=False,
    )


@pytest.mark.parametrize(("status", "code"), [(83, 0), (0, 0), (3, 1), (-9, 137), (2, MONITOR_FAILED)])
def test_exit_of_a_guest_of_solo5_for_virtio(status: int, code: int) -> None:
    assert decode_exit(ExitRule.SOLO5_EXIT, status, stderr_empty=True) == code


def test_descriptor_numbers_follow_the_files() -> None:
    plan = monitors.plan(HELLO._replace(initrd=True), FACTS)
    assert [plan.fd_of(file.role) for file in plan.files] == [3, 4, 5, 6]
    with pytest.raises(KeyError):
        plan.fd_of(FileRole.DISK)


@pytest.mark.parametrize("wish", [True, False])
def test_the_image_says_whether_it_obeys_the_power_button(*, wish: bool) -> None:
    assert monitors.plan(HELLO._replace(guest=HELLO.guest._replace(powerdown=wish)), FACTS).powerdown is wish


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_mib": 7}, "8 to 1048576 MiB, not 7"),
        ({"memory_mib": (1 << 20) + 1}, "8 to 1048576 MiB"),
        ({"vcpus": 0}, "1 to 255 processors, not 0"),
        ({"machine": "pc"}, "machine 'pc' is unknown here .known: microvm, q35"),
        ({"accel": "xen"}, "accelerator 'xen' is unknown here"),
        ({"name": "a\nb"}, "line break"),
        ({"disk": DiskSpec("vmdk")}, "disk format 'vmdk' is unknown"),
        ({"disk": DiskSpec("raw", backing=True)}, "raw disk cannot have a backing"),
        ({"disk": DiskSpec("raw", id="x" * 21)}, "too long"),
        ({"network": NET._replace(mac="\0")}, "NUL"),
        ({"guest": GuestConfig("rumprun", "qemu", "/k")}, "monitor 'qemu' cannot run guest 'rumprun'"),
        ({"guest": GuestConfig("linux", "hvt", "/k")}, "monitor 'hvt' cannot run guest 'linux'"),
    ],
)
def test_requests_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises((InvalidArgument, Unimplemented), match=message):
        monitors.plan(HELLO._replace(**change), FACTS)  # type: ignore[arg-type]  # each case's value fits its name


@pytest.mark.parametrize(("machine", "transport"), [("q35", "pci"), ("microvm", "device")])
def test_a_virtio_console_is_the_serial_port_s_in_everything_else(machine: str, transport: str) -> None:
    serial = LINUX._replace(machine=machine, accel="kvm", initrd=True)
    words = list(monitors.plan(serial, FACTS).argv)
    at = words.index("-serial")
    words[at : at + 2] = ("-device", f"virtio-serial-{transport},max_ports=1", "-device", "virtconsole,chardev=console")
    virtio = monitors.plan(serial._replace(guest=serial.guest._replace(console="virtio")), FACTS)
    assert list(virtio.argv) == [word.replace("console=ttyS0", "console=hvc0") for word in words]
    assert monitors.plan(serial._replace(guest=serial.guest._replace(console="serial")), FACTS).argv[at] == "-serial"


def test_linux_on_microvm_needs_kvm() -> None:
    with pytest.raises(InvalidArgument, match="without KVM, Linux does not come up on QEMU's machine microvm"):
        monitors.plan(LINUX._replace(machine="microvm"), FACTS)


def test_a_value_in_key_value_syntax_is_escaped_and_never_adds_a_key() -> None:
    assert option_value("a,readonly=off") == "a,,readonly=off"


def test_offered_monitors_know_their_names() -> None:
    assert monitors.offered() == ("cloud-hypervisor", "firecracker", "hvt", "qemu", "spt", "uml")
    assert [monitors.monitor(name).name for name in monitors.offered()] == list(monitors.offered())
    with pytest.raises(Unimplemented, match="monitor 'hyperlight-unikraft' is known but not offered by this version"):
        monitors.monitor("hyperlight-unikraft")
    with pytest.raises(InvalidArgument, match="did you mean 'qemu'"):
        monitors.monitor("qemo")


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (b"", ""),
        (b"qemu-system-x86_64: -chardev socket,id=console: info: QEMU waiting for connection on: x\n", ""),
        (b"qemu-system-x86_64: terminating on signal 15 from pid 1 (x)\n", ""),
        (b"qemu-system-x86_64: warning: y\nqemu-system-x86_64: -kernel x: cannot load\n", "-kernel x: cannot load"),
        (b"qemu-system-x86_64: error: bad MSR\nqemu-system-x86_64: ../x.c:1: Assertion failed\n\n", "bad MSR"),
        (b"\xff" * 5000, "\ufffd" * 1000),
    ],
)
def test_what_qemu_complains_about(stderr: bytes, line: str) -> None:
    assert MONITOR.complaint(stderr) == line


@pytest.mark.parametrize(
    ("status", "stderr_empty", "exit_code"),
    [
        (0, True, 0),
        (0, False, 0),
        (1, True, 0),
        (1, False, MONITOR_FAILED),
        (3, False, 1),
        (43, True, 21),
        (255, True, 127),
        (2, True, MONITOR_FAILED),
        (126, True, MONITOR_FAILED),
        (-9, True, 137),
        (-15, False, 143),
    ],
)
def test_exit_by_isa_debug_exit(status: int, stderr_empty: bool, exit_code: int) -> None:
    assert decode_exit(ExitRule.DEBUG_EXIT, status, stderr_empty=stderr_empty) == exit_code


@pytest.mark.parametrize(("status", "exit_code"), [(0, 0), (1, 1), (2, 2), (255, 255), (-6, 134)])
def test_exit_of_a_monitor_that_hands_its_guests_status_on(status: int, exit_code: int) -> None:
    assert decode_exit(ExitRule.SAME, status, stderr_empty=False) == exit_code
