"""Disks beside that of the root: how a container gets them, how each monitor and guest is told of them, and directories that become one."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from unikeel import monitors
from unikeel.engine import copies
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.guests import guest, own_init, urunit
from unikeel.guests.own_init import COPIES
from unikeel.model import cpio
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import Attached, DiskSpec, FileRole, LaunchRequest, Mounted, OwnInit, PlanFile
from unikeel.model.rootfs import Able, Rootfs, choose_rootfs
from unikeel.model.volumes import Volume, parse
from unikeel.model.ways import MOST_DISKS, Receiver, Way, place
from unikeel.monitors.contract import Facts

FACTS = Facts("/m", (54, 0), ("/m",), "identity")
BASE = LaunchRequest(
    name="web",
    guest=GuestConfig("linux", "qemu", "/k"),
    args=("/urunit", "/app"),
    env=("A=1",),
    memory_mib=256,
    vcpus=1,
    machine="q35",
    accel="kvm",
    disk=DiskSpec("raw"),
    initrd=True,
    retained=True,
    extra=(
        Attached(DiskSpec("qcow2", backing=True, id="annot_vol"), "/data"),
        Attached(DiskSpec("raw", read_only=True, device=True, id="vol0"), "/fixed"),
    ),
)
RAW = (
    Attached(DiskSpec("raw", id="vol0"), "/data"),
    Attached(DiskSpec("raw", read_only=True, id="vol1"), "/fixed", "xfs"),
)
URUNIT = Receiver("linux", "firecracker", Rootfs.SNAPSHOT, extra_disks=True)
EXTRA = Able(guest("linux").block, snapshot_fs="ext4", image_disk=True, extra_disks=True)


def on(monitor: str, **changes: object) -> LaunchRequest:
    request = BASE._replace(guest=BASE.guest._replace(monitor=monitor), extra=RAW)
    return request._replace(**changes)  # type: ignore[arg-type]  # fields by their names


# -- what a user says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/dev/sdb:/data:disk", Volume("/dev/sdb", "/data", disk=True)),
        ("/a.img:/data:disk,ro", Volume("/a.img", "/data", read_only=True, disk=True)),
        ("/a.img:/data:rw,disk", Volume("/a.img", "/data", disk=True)),
    ],
)
def test_a_disk_is_a_volume(text: str, volume: Volume) -> None:
    assert parse(text) == volume


@pytest.mark.parametrize("mode", ["disk,disk", "ro,rw", "disk,", "Disk", "ro,disk,rw"])
def test_modes_that_say_nothing(mode: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a volume"):
        parse(f"/a:/b:{mode}")


def test_who_is_given_disks() -> None:
    disk, shared = Volume("/a", "/a", disk=True), Volume("/b", "/b")
    own = Receiver("linux", "qemu", Rootfs.SNAPSHOT, own_init=True, extra_disks=True, shared=("virtiofs",))
    placed = place([disk, shared], own)
    assert (placed.volumes, placed.way, placed.share) == ((disk, shared), Way.SHARE, "virtiofs")
    assert place([disk], URUNIT).way is Way.NONE
    assert place([shared], URUNIT).way is Way.COPIES
    with pytest.raises(Unimplemented, match="guest linux on uml cannot be given the disk for /a"):
        place([disk], Receiver("linux", "uml", Rootfs.SNAPSHOT))
    left = place([disk._replace(optional=True), shared], own._replace(extra_disks=False))
    assert (left.volumes, len(left.left_out)) == ((shared,), 1)
    with pytest.raises(InvalidArgument, match="16 further disks, not 17"):
        place([disk._replace(target=f"/{number}") for number in range(MOST_DISKS + 1)], own)


@pytest.mark.parametrize(
    ("config", "args", "expected"),
    [
        (GuestConfig("linux", "qemu", "none", kernel="default"), (), True),
        (GuestConfig("linux", "qemu", "/k"), ("/urunit", "/app"), True),
        (GuestConfig("linux", "qemu", "/k", cmdline="/bin/urunit x"), (), True),
        (GuestConfig("linux", "qemu", "/k"), ("/app",), False),
        (GuestConfig("linux", "uml", "/k"), ("/urunit",), False),
        (GuestConfig("linux", "qemu", "/k", initrd="/i", rootfs="block"), ("/urunit",), False),
        (GuestConfig("mirage", "spt", "/k"), ("urunit",), False),
    ],
)
def test_who_can_be_told_to_mount_them(config: GuestConfig, args: tuple[str, ...], expected: bool) -> None:
    assert urunit.mounts_disks(config, args) is expected


def test_the_image_s_own_disk_beside_its_root() -> None:
    config = GuestConfig("linux", "qemu", "/k", block="/d", block_mount="/data", mount_rootfs=True)
    choice = choose_rootfs(config, EXTRA)
    assert (choice.kind, choice.image_disk) == (Rootfs.SNAPSHOT, "/data")
    assert choose_rootfs(config._replace(initrd="/i"), EXTRA).image_disk == "/data"
    for able in (EXTRA._replace(extra_disks=False), EXTRA._replace(image_disk=False)):
        with pytest.raises(Unimplemented, match="/d cannot be attached at /data"):
            choose_rootfs(config, able)


@pytest.mark.parametrize(("kind", "monitor"), [("mirage", "spt"), ("rumprun", "hvt")])
def test_the_one_disk_of_a_unikernel_may_be_anywhere(kind: str, monitor: str) -> None:
    config = GuestConfig(kind, monitor, "/k", block="/d", block_mount="/database")
    able = Able(guest(kind).block, initrd=False, image_disk=True)
    assert choose_rootfs(config, able).kind is Rootfs.IMAGE_DISK
    request = on(monitor, guest=config, disk=DiskSpec("raw"), initrd=False, extra=(), args=("x",))
    assert ('"mountpoint":"/database"' in guest(kind).cmdline(request)) is (kind == "rumprun")
    with pytest.raises(Unimplemented, match="cannot be attached at /database"):
        choose_rootfs(config._replace(mount_rootfs=True), able._replace(snapshot_fs="ext2"))


# -- what monitors and guests are told -----------------------------------------------------------------------------------


def test_qemu() -> None:
    """In this order: Linux gives the names vda, vdb and so on by it. Before a share of directories, whose numbers follow."""
    plan = monitors.plan(BASE, FACTS)
    assert plan.files[2:] == (
        PlanFile(FileRole.DISK, True),
        PlanFile(FileRole.QMP, True),
        PlanFile(FileRole.CONSOLE, True),
        PlanFile(FileRole.EXTRA, True),
        PlanFile(FileRole.EXTRA, False),
        PlanFile(FileRole.EXTRA, False),
    )
    sets = [plan.argv[index + 1] for index, word in enumerate(plan.argv) if word == "-add-fd"]
    assert sets == ["fd=5,set=1", "fd=9,set=4", "fd=8,set=3", "fd=10,set=5"]
    devices = [word for word in plan.argv if word.startswith("virtio-blk")]
    assert devices == [
        "virtio-blk-pci,drive=disk,serial=rootfs",
        "virtio-blk-pci,drive=extra1,serial=annot_vol",
        "virtio-blk-pci,drive=extra2,serial=vol0",
    ]
    nodes = [json.loads(plan.argv[index + 1]) for index, word in enumerate(plan.argv) if word == "-blockdev"]
    assert {node["node-name"]: node["driver"] for node in nodes} == {
        "disk-file": "file",
        "disk": "raw",
        "base1-file": "file",
        "base1": "raw",
        "extra1-file": "file",
        "extra1": "qcow2",
        "extra2-file": "host_device",
        "extra2": "raw",
    }
    assert next(node for node in nodes if node["node-name"] == "extra1")["backing"] == "base1"
    small = [
        word
        for word in monitors.plan(BASE._replace(machine="microvm", accel="kvm"), FACTS).argv
        if word.startswith("virtio-b")
    ]
    assert small == [device.replace("-pci", "-device") for device in devices]


def test_firecracker() -> None:
    plan = monitors.plan(on("firecracker"), FACTS)
    assert plan.files[-3:] == (
        PlanFile(FileRole.CONFIG, False),
        PlanFile(FileRole.EXTRA, True),
        PlanFile(FileRole.EXTRA, False),
    )
    drives = [(d["drive_id"], d["path_on_host"], d["is_read_only"]) for d in json.loads(plan.config)["drives"]]
    assert drives == [
        ("rootfs", "/proc/self/fd/5", False),
        ("FCvol0", "/proc/self/fd/7", False),
        ("FCvol1", "/proc/self/fd/8", True),
    ]
    assert b"ID:FCvol0\nMP:/data\nID:FCvol1\nMP:/fixed\nUBE\n" in urunit.configuration(on("firecracker"))


def test_cloud_hypervisor() -> None:
    argv = monitors.plan(on("cloud-hypervisor"), FACTS).argv
    at = argv.index("--disk")
    assert argv[at + 1 : at + 5] == (
        "path=/proc/self/fd/5,id=rootfs,image_type=raw",
        "path=/proc/self/fd/7,id=vol0,image_type=raw,serial=vol0",
        "path=/proc/self/fd/8,id=vol1,image_type=raw,readonly=on,serial=vol1",
        "--kernel",
    )


def test_user_mode_linux_with_our_init() -> None:
    request = on("uml", own=OwnInit(b"init"), accel="", disk=None)
    argv = monitors.plan(request, FACTS).argv
    assert [word for word in argv if word.startswith("ubd")] == ["ubd0d=/proc/self/fd/4", "ubd1rd=/proc/self/fd/5"]
    texts = own_init.settings(request, "/dev/ubda").decode().split("\0")
    assert [text for text in texts if text[0:2] == "v:"] == ["v:/dev/ubda,ext4:w:/data", "v:/dev/ubdb,xfs:r:/fixed"]


def test_what_is_beneath_another_is_mounted_after_it() -> None:
    request = on("qemu", own=OwnInit(b"init"), volumes=(Mounted("0", "/data/x"), Mounted("1", "/a")))
    texts = own_init.settings(request, "/dev/vda").decode().split("\0")
    assert [text.rpartition(":")[2] for text in texts if text[0:2] == "v:"] == ["/a", "/data", "/fixed", "/data/x"]


def test_urunit_s_configuration() -> None:
    assert urunit.configuration(BASE) == (
        b"UES\nA=1\nUEE\nUCS\nUID:0\nGID:0\nWD:/\nUCE\nUBS\nID:annot_vol\nMP:/data\nID:vol0\nMP:/fixed\nUBE\n"
    )
    for hostile in (BASE._replace(env=("UEE",)), BASE._replace(extra=(Attached(DiskSpec("raw"), "/a\nID:x"),))):
        with pytest.raises(InvalidArgument):
            urunit.configuration(hostile)


def test_nobody_is_given_a_disk_that_nothing_mounts() -> None:
    for changes in ({"args": ("/app",)}, {"retained": False}):
        with pytest.raises(InvalidArgument, match="nothing in the guest could be told to mount a disk at /data"):
            guest("linux").cmdline(on("qemu", **changes))


# -- directories as copies -----------------------------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """As kubelet makes them: the files are links into a directory that is replaced whole."""
    top = tmp_path / "secrets"
    (top / "..now" / "sub").mkdir(parents=True)
    (top / "..now" / "token").write_bytes(b"secret")
    (top / "..now" / "empty").write_bytes(b"")
    (top / "..data").symlink_to("..now")
    (top / "token").symlink_to("..data/token")
    return top


def test_a_directory_in_the_initrd(secrets: Path) -> None:
    volume = Volume(str(secrets), "/run/s", read_only=True)
    found = dict(copies.files([volume], apart=False).files)
    assert {path: file.data for path, file in found.items()} == {
        **dict.fromkeys(("/run/s", "/run/s/..now", "/run/s/..now/sub", "/run/s/..now/empty"), b""),
        "/run/s/..now/token": b"secret",
        "/run/s/..data": b"..now",
        "/run/s/token": b"..data/token",
    }
    apart = copies.files([volume], apart=True)
    assert apart.mounted == (Mounted("0", "/run/s", read_only=True),)
    assert {path for path, _ in apart.files} == {path.replace("/run/s", f"{COPIES}/0") for path in found}
    assert cpio.archive(found).count(b"secret") == 1


def test_a_directory_as_a_disk(secrets: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        made = copies.disks([Volume(str(secrets), "/run/s", read_only=True)], stack)
        assert made.extra == (Attached(DiskSpec("raw", read_only=True, id="copy0"), "/run/s"),)
        disk = tmp_path / "disk"
        disk.write_bytes(os.pread(made.fds[0], 64 << 20, 0))
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True, timeout=60)
    for command, expected in (("cat /..now/token", "secret"), ("stat /token", 'Fast link dest: "..data/token"')):
        run = subprocess.run(["debugfs", "-R", command, disk], check=True, capture_output=True, text=True, timeout=60)
        assert expected in run.stdout


def test_what_has_no_copy_is_named(secrets: Path) -> None:
    for number in range(6):
        os.mkfifo(secrets / f"fifo{number}")
    volume = Volume(str(secrets), "/run/s", read_only=True)
    with pytest.raises(
        InvalidArgument, match=r"'/fifo0', .*'/fifo4', … in the volume .* cannot be copied, being a socket, a fifo"
    ):
        copies.files([volume], apart=False)
    optional = copies.files([volume._replace(optional=True)], apart=False)
    assert [text.partition(": ")[2] for text in optional.told] == ["the guest has the volume at /run/s without"]
    assert "/run/s/token" in dict(optional.files)
    with ExitStack() as stack:
        disks = copies.disks([volume._replace(optional=True, read_only=False)], stack)
    assert disks.told[1:] == ("the guest has a copy of the volume at /run/s, and cannot write to it",)


def test_what_is_not_copied(secrets: Path, tmp_path: Path) -> None:
    large, many = tmp_path / "large", tmp_path / "many"
    large.write_bytes(bytes((1 << 20) + 1))
    many.mkdir()
    os.mkfifo(tmp_path / "fifo")
    for number in range(9):
        (many / str(number)).write_bytes(bytes(1 << 20))
    for volume, said in (
        (Volume(str(secrets), "/s"), "is to be written to"),
        (Volume(str(large), "/s"), "has more than 1048576 bytes"),
        (Volume(str(many), "/s", read_only=True), "more than 8388608 bytes"),
        (Volume(str(tmp_path / "fifo"), "/s"), "neither a file nor a directory"),
        (Volume(str(tmp_path / "not"), "/s"), "cannot be read: No such file"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            copies.files([volume], apart=False)
        optional = copies.files([volume._replace(optional=True)], apart=True)
        if said != "is to be written to":  # of what is optional a copy is better than nothing
            assert (optional.files, optional.mounted, len(optional.told)) == ((), (), 1)
        else:
            assert optional.told == ("the guest has a copy of the volume at /s: what it writes there is lost",)
    with ExitStack() as stack, pytest.raises(InvalidArgument, match="is no directory"):
        copies.disks([Volume(str(large.with_name("small")), "/s")._replace(source="/etc/hostname")], stack)
