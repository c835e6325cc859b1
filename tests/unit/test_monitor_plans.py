"""The plans of the monitors beside QEMU, compared whole with recorded expectations.

Where those come from: Firecracker 1.7's API (firecracker.yaml) and docs/getting-started.md; Cloud Hypervisor 50's ``--help`` and docs/api.md; Solo5 0.12's docs/building.md
and tenders/*_main.c; user-mode Linux 6.1's ``--help`` and user_mode_linux_howto_v2.rst; urunc's builders for the same guests (pkg/unikontainers/hypervisors,
2026), whose words are kept except where a descriptor takes the place of a path.
"""

from __future__ import annotations

import json

import pytest

from unikeel import monitors
from unikeel.errors import InvalidArgument
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import MONITORS, PAIRS
from unikeel.model.plan import (
    Console,
    Control,
    DiskSpec,
    ExitRule,
    FileRole,
    LaunchPlan,
    LaunchRequest,
    PlanFile,
    TapNet,
    UserNet,
)
from unikeel.monitors.cloud_hypervisor import plain
from unikeel.monitors.contract import Facts

TAP = TapNet("10.88.0.7", 16, "10.88.0.1", "10.88.0.1", "52:54:00:12:34:56", "tap0", mtu=1400)
LINUX = LaunchRequest(
    name="web",
    guest=GuestConfig("linux", "firecracker", "/boot/vmlinux", initrd="/boot/initrd"),
    args=("/usr/sbin/nginx", "-g", "daemon off;"),
    env=("A=1",),
    memory_mib=512,
    vcpus=2,
    machine="q35",
    accel="kvm",
)
MIRAGE = LINUX._replace(guest=GuestConfig("mirage", "hvt", "/k"), args=("-v",), env=(), vcpus=1)


def facts(path: str) -> Facts:
    return Facts(path, (1, 2, 3), (path, "/usr/lib"), "identity")


def on(monitor: str, request: LaunchRequest = LINUX) -> LaunchRequest:
    accel = "host" if monitor in ("spt", "uml") else request.accel
    return request._replace(guest=request.guest._replace(monitor=monitor), accel=accel)


def test_firecracker_with_a_disk_and_a_tap() -> None:
    plan = monitors.plan(LINUX._replace(disk=DiskSpec("raw"), network=TAP), facts("/opt/firecracker"))
    assert plan._replace(config=b"") == LaunchPlan(
        argv=("/opt/firecracker", "--no-api", "--config-file", "/proc/self/fd/5", "--level", "Error"),
        files=(
            PlanFile(FileRole.KERNEL, False),
            PlanFile(FileRole.DISK, True),
            PlanFile(FileRole.CONFIG, False),
        ),
        devices=("/dev/kvm", "/dev/net/tun"),
        environment=(),
        memory_mib=512,
        binds=("/opt/firecracker", "/usr/lib"),
        exit=ExitRule.SAME,
        powerdown=False,
        control=Control.NONE,
        console=Console.STDIO,
        reopens=True,
    )
    assert json.loads(plan.config) == {
        "boot-source": {
            "kernel_image_path": "/proc/self/fd/3",
            "boot_args": "panic=-1 console=ttyS0 reboot=k quiet root=/dev/vda rw "
            "ip=10.88.0.7::10.88.0.1:255.255.0.0:unikeel:eth0:off:10.88.0.1 "
            'A=1 init=/usr/sbin/nginx -- -g "daemon off;"',
        },
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 512, "smt": False, "track_dirty_pages": False},
        "drives": [
            {
                "drive_id": "rootfs",
                "path_on_host": "/proc/self/fd/4",
                "is_read_only": False,
                "is_root_device": False,
            }
        ],
        "network-interfaces": [{"iface_id": "net1", "guest_mac": "52:54:00:12:34:56", "host_dev_name": "tap0"}],
    }


def test_firecracker_with_an_initrd_alone() -> None:
    plan = monitors.plan(LINUX._replace(initrd=True, args=("/init",), env=()), facts("/opt/firecracker"))
    assert json.loads(plan.config) == {
        "boot-source": {
            "kernel_image_path": "/proc/self/fd/3",
            "initrd_path": "/proc/self/fd/4",
            "boot_args": "panic=-1 console=ttyS0 reboot=k quiet root=/dev/ram0 rw rdinit=/init",
        },
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 512, "smt": False, "track_dirty_pages": False},
        "drives": [],
    }
    assert plan.devices == ("/dev/kvm",)


def test_cloud_hypervisor_with_everything() -> None:
    request = on("cloud-hypervisor", LINUX._replace(disk=DiskSpec("raw", read_only=True), network=TAP, initrd=True))
    assert monitors.plan(request, facts("/opt/ch")) == LaunchPlan(
        argv=(
            "/opt/ch",
            *("--api-socket", "fd=7"),
            *("--cpus", "boot=2", "--memory", "size=512M"),
            *("--serial", "tty", "--console", "off", "--seccomp", "true"),
            *("--disk", "path=/proc/self/fd/5,id=rootfs,image_type=raw,readonly=on"),
            *("--net", "fd=6,mac=52:54:00:12:34:56,mtu=1400"),
            *("--kernel", "/proc/self/fd/3", "--initramfs", "/proc/self/fd/4"),
            "--cmdline",
            "panic=-1 console=ttyS0 quiet root=/dev/vda ro "
            "ip=10.88.0.7::10.88.0.1:255.255.0.0:unikeel:eth0:off:10.88.0.1 "
            'A=1 init=/usr/sbin/nginx -- -g "daemon off;"',
        ),
        files=(
            PlanFile(FileRole.KERNEL, False),
            PlanFile(FileRole.INITRD, False),
            PlanFile(FileRole.DISK, False),
            PlanFile(FileRole.NET, True),
            PlanFile(FileRole.API, True),
        ),
        devices=("/dev/kvm",),
        environment=(),
        memory_mib=512,
        binds=("/opt/ch", "/usr/lib"),
        exit=ExitRule.SAME,
        powerdown=True,
        control=Control.HTTP,
        console=Console.STDIO,
        reopens=True,
    )


def test_a_virtio_console_where_the_monitor_has_one() -> None:
    request = LINUX._replace(initrd=True, guest=LINUX.guest._replace(console="virtio"))
    argv = monitors.plan(on("cloud-hypervisor", request), facts("/opt/ch")).argv
    at = argv.index("--serial")
    assert argv[at : at + 4] == ("--serial", "off", "--console", "tty")
    assert argv[-1].startswith("panic=-1 console=hvc0 quiet ")
    for monitor in ("firecracker", "uml"):
        with pytest.raises(InvalidArgument, match=f"the monitor {monitor} has no virtio console"):
            monitors.plan(on(monitor, request._replace(vcpus=1)), facts("/m"))


@pytest.mark.parametrize("value", ["a,readonly=on", "", "a b", 'a"', "[1]", "a\n"])
def test_a_value_that_would_add_a_key_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be given to Cloud Hypervisor"):
        plain(value)


@pytest.mark.parametrize(("monitor", "devices"), [("hvt", ("/dev/kvm",)), ("spt", ())])
def test_solo5_with_everything(monitor: str, devices: tuple[str, ...]) -> None:
    request = on(monitor, MIRAGE._replace(disk=DiskSpec("raw"), network=TAP))
    assert monitors.plan(request, facts(f"/opt/solo5-{monitor}")) == LaunchPlan(
        argv=(
            f"/opt/solo5-{monitor}",
            "--mem=512",
            "--net:service=@5",
            "--net-mac:service=52:54:00:12:34:56",
            "--block:storage=/proc/self/fd/4",
            "--",
            "/proc/self/fd/3",
            "--ipv4=10.88.0.7/16 --ipv4-gateway=10.88.0.1 -v",
        ),
        files=(PlanFile(FileRole.KERNEL, False), PlanFile(FileRole.DISK, True), PlanFile(FileRole.NET, True)),
        devices=devices,
        environment=(),
        memory_mib=512,
        binds=(f"/opt/solo5-{monitor}", "/usr/lib"),
        exit=ExitRule.SAME,
        powerdown=False,
        control=Control.NONE,
        console=Console.STDIO,
        reopens=True,
        syscalls=("personality",),
    )


def test_solo5s_devices_are_called_as_the_guest_or_the_image_says() -> None:
    rumprun = on("hvt", MIRAGE._replace(guest=GuestConfig("rumprun", "hvt", "/k"), disk=DiskSpec("raw"), network=TAP))
    argv = monitors.plan(rumprun, facts("/opt/solo5-hvt")).argv
    assert {"--net:tap=@5", "--block:rootfs=/proc/self/fd/4"} < set(argv)
    named = GuestConfig("mirage", "hvt", "/k", net_device="management", block_device="data")
    argv = monitors.plan(rumprun._replace(guest=named), facts("/opt/solo5-hvt")).argv
    assert {"--net:management=@5", "--block:data=/proc/self/fd/4"} < set(argv)


def test_a_solo5_guest_with_nothing() -> None:
    plan = monitors.plan(on("spt", MIRAGE._replace(args=())), facts("/opt/solo5-spt"))
    assert plan.argv == ("/opt/solo5-spt", "--mem=512", "--", "/proc/self/fd/3")


def test_user_mode_linux_with_an_initrd() -> None:
    request = on("uml", LINUX._replace(initrd=True, vcpus=1, args=("/init", "mem=1G", "ubd1=/etc/shadow")))
    assert monitors.plan(request, facts("/usr/bin/linux.uml")) == LaunchPlan(
        argv=(
            "/usr/bin/linux.uml",
            *("mem=512M", "uml_dir=/tmp/uml", "umid=guest"),
            *("noreboot", "con0=fd:0,fd:1", "con=null", "ssl=null"),
            *("initrd=/proc/self/fd/3", "root=/dev/ram0", "console=tty0"),
            "panic=-1 console=tty0 quiet root=/dev/ram0 rw A=1 rdinit=/init -- mem=1G ubd1=/etc/shadow",
        ),
        files=(PlanFile(FileRole.INITRD, False),),
        devices=(),
        environment=("TMPDIR=/tmp",),
        memory_mib=512,
        binds=("/usr/bin/linux.uml", "/usr/lib"),
        exit=ExitRule.SAME,
        powerdown=True,
        control=Control.MCONSOLE,
        console=Console.STDIO,
        reopens=True,
        scratch=516 << 20,
        syscalls=("ptrace", "modify_ldt", "mkdir", "rmdir"),
    )


def test_user_mode_linux_with_a_disk_never_looks_for_a_header_in_it() -> None:
    request = on("uml", LINUX._replace(vcpus=1, disk=DiskSpec("raw")))
    argv = monitors.plan(request, facts("/usr/bin/linux.uml")).argv
    assert argv[-4:-1] == ("ubd0d=/proc/self/fd/3", "root=/dev/ubda", "console=tty0")
    assert argv[-1].startswith("panic=-1 console=tty0 quiet root=/dev/ubda rw A=1 init=/usr/sbin/nginx -- ")
    read_only = request._replace(disk=DiskSpec("raw", read_only=True))
    assert "ubd0rd=/proc/self/fd/3" in monitors.plan(read_only, facts("/usr/bin/linux.uml")).argv


@pytest.mark.parametrize(
    "word", ["mem=1G", "ubd1=/etc/shadow", "initrd=/etc/shadow", "hostfs=/", "xterm=/bin/sh,-T,-e"]
)
def test_nothing_that_a_user_says_becomes_an_option_of_user_mode_linux(word: str) -> None:
    request = on("uml", LINUX._replace(initrd=True, vcpus=1, args=(word, word), env=("A=1", f"{word} x")))
    argv = monitors.plan(request, facts("/usr/bin/linux.uml")).argv
    plain_argv = monitors.plan(on("uml", LINUX._replace(initrd=True, vcpus=1)), facts("/usr/bin/linux.uml")).argv
    assert argv[:-1] == plain_argv[:-1]
    assert argv[-1].startswith("panic=")


@pytest.mark.parametrize("variable", ["con1=xterm", "ssl0=pts", "connection=x"])
def test_variables_that_linux_takes_for_user_mode_consoles_are_refused(variable: str) -> None:
    with pytest.raises(InvalidArgument, match="for its consoles"):
        monitors.plan(on("uml", LINUX._replace(initrd=True, vcpus=1, env=(variable,))), facts("/usr/bin/linux.uml"))


USER = UserNet("10.0.2.15", 24, "10.0.2.2", "10.0.2.3", "52:54:00:12:34:56")


@pytest.mark.parametrize("monitor", ["firecracker", "cloud-hypervisor", "hvt", "spt", "uml"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_mib": 7}, "8 to 1048576 MiB, not 7"),
        ({"vcpus": 0}, "can have .* not 0"),
        ({"vcpus": 300}, "can have .* not 300"),
        ({"disk": DiskSpec("qcow2")}, "cannot use a disk of format 'qcow2'"),
        ({"network": USER}, "has no user-mode networking"),
        ({"halted": True}, "cannot wait before its guest's first instruction"),
    ],
)
def test_requests_that_cannot_be(monitor: str, change: dict[str, object], message: str) -> None:
    base = LINUX if "linux" in PAIRS[monitor] else MIRAGE
    request = on(monitor, base._replace(initrd="linux" in PAIRS[monitor], vcpus=1))
    monitors.plan(request, facts("/m"))
    with pytest.raises(InvalidArgument, match=message):
        monitors.plan(request._replace(**change), facts("/m"))  # type: ignore[arg-type]  # each case's value fits its name


@pytest.mark.parametrize("monitor", ["firecracker", "cloud-hypervisor", "hvt"])
def test_without_kvm_there_is_no_guest(monitor: str) -> None:
    request = on(monitor, LINUX if monitor != "hvt" else MIRAGE)._replace(accel="tcg", vcpus=1)
    with pytest.raises(InvalidArgument, match=f"the monitor {monitor} works with kvm only, not with tcg"):
        monitors.plan(request, facts("/m"))


def test_user_mode_linux_needs_a_root_and_has_no_network() -> None:
    with pytest.raises(InvalidArgument, match="needs a root file system"):
        monitors.plan(on("uml", LINUX._replace(vcpus=1)), facts("/m"))
    with pytest.raises(InvalidArgument, match="has no network here"):
        monitors.plan(on("uml", LINUX._replace(vcpus=1, initrd=True, network=TAP)), facts("/m"))


def test_what_is_offered_supports_something() -> None:
    assert set(monitors.offered()) == set(MONITORS) - {"hyperlight-unikraft"}
    for name in monitors.offered():
        traits = monitors.monitor(name).traits
        assert traits.disks[0] == "raw"
        assert traits.halts is (name == "qemu")


@pytest.mark.parametrize(
    ("monitor", "stderr", "line"),
    [
        (
            "spt",
            b"solo5-spt: /k: Executable is not for the solo5-spt target\n",
            "/k: Executable is not for the solo5-spt target",
        ),
        ("hvt", b"", ""),
        ("uml", b"Core dump limits :\nToo few physical memory! Needed=9\n", "Too few physical memory! Needed=9"),
        (
            "firecracker",
            b"x\n2026-01-01T00:00:00 [anonymous-instance:main] Error: RunWithoutApiError\n",
            "2026-01-01T00:00:00 [anonymous-instance:main] Error: RunWithoutApiError",
        ),
        (
            "cloud-hypervisor",
            b"Error booting VM: KernelFile\ncloud-hypervisor: 1s: <vmm> WARN: x\n",
            "Error booting VM: KernelFile",
        ),
    ],
)
def test_what_they_complain_about(monitor: str, stderr: bytes, line: str) -> None:
    assert monitors.monitor(monitor).complaint(stderr) == line
