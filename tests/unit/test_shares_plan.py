"""Shared directories in launch plans, in what guests are told, and in the sandbox of their server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel import monitors
from unikeel.engine.initrds import complete
from unikeel.guests import guest, own_init
from unikeel.kernel.paths import remove_strange_tree
from unikeel.model.cpio import File
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import (
    FIRST_FD,
    ROOT_SHARE,
    VOLUMES,
    DiskSpec,
    FileRole,
    LaunchRequest,
    Mounted,
    OwnInit,
    PlanFile,
    Share,
)
from unikeel.monitors.contract import Facts
from unikeel.sandbox import file_server
from unikeel.sandbox.spec import build

FACTS = Facts("/usr/bin/qemu-system-x86_64", (7, 2, 22), ("/usr/bin/qemu-system-x86_64", "/usr/lib"), "identity")
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
    guest=GuestConfig("linux", "qemu", "/boot/vmlinuz", initrd="/boot/initrd"),
    memory_mib=512,
    machine="q35",
    initrd=True,
)
OWN = LINUX._replace(
    guest=GuestConfig("linux", "qemu", "none", kernel="default"),
    disk=DiskSpec("raw"),
    initrd=False,
    own=OwnInit(b"ELF"),
)

VIRTIOFS = Share(ROOT_SHARE, "virtiofs")
NINE = Share(ROOT_SHARE, "9p", read_only=True)


def words_after(argv: tuple[str, ...], option: str) -> list[str]:
    return [argv[number + 1] for number, word in enumerate(argv[:-1]) if word == option]


def test_virtiofs_shares_the_guests_memory_with_its_server() -> None:
    plan = monitors.plan(LINUX._replace(shares=(VIRTIOFS, Share(VOLUMES, "virtiofs"))), FACTS)
    assert plan.files[-2:] == (PlanFile(FileRole.SHARE, writable=True),) * 2
    first = FIRST_FD + len(plan.files) - 2
    assert words_after(plan.argv, "-machine") == ["q35,sata=off,smbus=off,usb=off,vmport=off,memory-backend=memory"]
    assert words_after(plan.argv, "-object") == ["memory-backend-memfd,id=memory,size=512M,share=on"]
    assert words_after(plan.argv, "-chardev")[2:] == [f"socket,id=fs0,fd={first}", f"socket,id=volumes,fd={first + 1}"]
    assert [word for word in words_after(plan.argv, "-device") if "fs-pci" in word] == [
        "vhost-user-fs-pci,chardev=fs0,tag=fs0,queue-size=1024",
        "vhost-user-fs-pci,chardev=volumes,tag=volumes,queue-size=1024",
    ]
    assert plan.syscalls == ()


def test_9p_is_served_by_qemu_from_a_descriptor() -> None:
    plan = monitors.plan(
        HELLO._replace(guest=GuestConfig("unikraft", "qemu", "/k"), machine="q35", shares=(NINE,)), FACTS
    )
    assert plan.files[-1] == PlanFile(FileRole.SHARE, writable=False)
    number = FIRST_FD + len(plan.files) - 1
    assert words_after(plan.argv, "-fsdev") == [
        f"local,id=fs0,path=/proc/self/fd/{number},security_model=none,multidevs=remap,readonly=on"
    ]
    assert "virtio-9p-pci,fsdev=fs0,mount_tag=fs0" in words_after(plan.argv, "-device")
    assert words_after(plan.argv, "-machine") == ["q35,sata=off,smbus=off,usb=off,vmport=off"]
    assert "utimensat" in plan.syscalls


def test_what_guests_are_told_of_a_shared_root_is_what_urunc_tells_them() -> None:
    """urunc.md 4.4."""
    linux = LINUX._replace(guest=GuestConfig("linux", "qemu", "/k", mount_rootfs=True), shares=(VIRTIOFS,))
    assert " root=fs0 rw rootfstype=virtiofs " in guest("linux").cmdline(linux)
    nine = linux._replace(shares=(NINE._replace(read_only=False),))
    flags = "rootflags=trans=virtio,version=9p2000.L,msize=5000000,cache=mmap,posixacl"
    assert f" root=fs0 rw rootfstype=9p {flags} " in guest("linux").cmdline(nine)
    unikraft = HELLO._replace(guest=GuestConfig("unikraft", "qemu", "/k", mount_rootfs=True), shares=(NINE,))
    assert 'vfs.fstab=[ "fs0:/:9pfs:::" ]' in guest("unikraft").cmdline(unikraft)


def told(request: LaunchRequest) -> list[str]:
    return own_init.settings(request, "/dev/vda").decode().split("\0")


def test_what_our_own_init_is_told() -> None:
    volumes = (Mounted("0", "/data"), Mounted("1", "/etc/a:b", read_only=True))
    request = OWN._replace(shares=(Share(VOLUMES, "virtiofs"),), volumes=volumes)
    texts = told(request)
    assert [text for text in texts if text[:1] in "dtorxyv"] == [
        "d:/dev/vda", "t:ext4", "x:virtiofs", "y:", "v:0:w:/data", "v:1:r:/etc/a:b", "",
    ]  # fmt: skip
    texts = told(OWN._replace(disk=None, shares=(NINE,)))
    options = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"
    assert [text for text in texts if text[:1] in "dtorxyv"] == ["d:fs0", "t:9p", f"o:{options}", "r:", ""]


def test_files_are_added_behind_an_initrd_that_is_the_root() -> None:
    from contextlib import ExitStack

    from unikeel.kernel.memfd import sealed_bytes

    request = LINUX._replace(added=(("/etc/hosts", File(b"10.0.0.1 web\n")),))
    with ExitStack() as stack:
        own = stack.enter_context(sealed_bytes("initrd", b"theirs"))
        made, fd = complete(request, own.fileno(), stack)
        data = os.pread(fd, 1 << 16, 0)
    assert made.initrd
    assert data.startswith(b"theirs\0\x00070701")
    assert b"etc/hosts\0" in data
    assert b"10.0.0.1 web\n" in data


def test_the_server_is_confined_as_a_monitor_is_but_for_what_serving_takes() -> None:
    plan = file_server.plan("/bin/sh")
    request = file_server.sandbox(file_server.Server("c.fs0", "/root", "/unikeel-c.fs0", 1024, 64), plan)
    spec = build(request)
    process = spec["process"]
    assert isinstance(process, dict)
    assert process["args"][:2] == ["/bin/sh", "--fd=3"]
    assert process["noNewPrivileges"] is True
    assert process["rlimits"] == [
        {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
        {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024},
    ]
    assert "CAP_SYS_ADMIN" not in process["capabilities"]["bounding"]
    assert process["capabilities"]["bounding"] == process["capabilities"]["permitted"] != []
    assert process["capabilities"]["ambient"] == []


@given(st.lists(st.integers(0, 5), max_size=24))
def test_a_strange_tree_goes_whatever_is_in_it(tmp_path_factory: pytest.TempPathFactory, steps: list[int]) -> None:
    root = str(tmp_path_factory.mktemp("strange"))
    here = os.path.join(root, "tree")
    os.mkdir(here)
    for number, step in enumerate(steps):
        names = ["raised-0", f"raised-{number}", "x" * 255, f"dir{step}"]
        if step < 4:
            here = os.path.join(here, names[step])
            os.makedirs(here, exist_ok=True)
        elif step == 4:
            Path(here, f"file{number}").write_text("x")
        else:
            os.symlink("/etc", os.path.join(here, f"link{number}"))
    remove_strange_tree(os.path.join(root, "tree"))
    remove_strange_tree(os.path.join(root, "tree"))
    assert os.listdir(root) == []
    assert os.path.exists("/etc/passwd")


def test_a_tree_deeper_than_a_path_can_be_goes(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("tree", dir_fd=top)
    here = os.open("tree", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    os.close(top)
    remove_strange_tree(str(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []
