"""Which root file system a guest gets: urunc's order, and our extension."""

from __future__ import annotations

import pytest

from unikeel.errors import BadContent, Unimplemented
from unikeel.guests import guest
from unikeel.model.image_fields import GuestConfig
from unikeel.model.rootfs import Able, BlockSupport, Rootfs, choose_rootfs

LINUX = GuestConfig("linux", "qemu", "/k")
GENERIC = GuestConfig("generic", "qemu", "/k")
EXT = guest("linux").block
ANY = guest("generic").block
NO_BLOCK = BlockSupport(supported=False)


@pytest.mark.parametrize(
    ("config", "block", "fs", "expected"),
    [
        (LINUX, EXT, "ext4", (Rootfs.NONE, False, False)),
        (LINUX._replace(mount_rootfs=True), EXT, "ext4", (Rootfs.SNAPSHOT, True, False)),
        (LINUX._replace(mount_rootfs=True, initrd="/i"), EXT, "ext4", (Rootfs.INITRD, False, True)),
        (LINUX._replace(initrd="/i"), EXT, "", (Rootfs.INITRD, False, True)),
        (LINUX._replace(initrd="/i", rootfs="block"), EXT, "ext2", (Rootfs.SNAPSHOT, True, True)),
        (LINUX._replace(rootfs="block"), EXT, "ext3", (Rootfs.SNAPSHOT, True, False)),
        (GENERIC._replace(mount_rootfs=True), ANY, "erofs", (Rootfs.SNAPSHOT, True, False)),
    ],
)
def test_decision(config: GuestConfig, block: BlockSupport, fs: str, expected: tuple[Rootfs, bool, bool]) -> None:
    choice = choose_rootfs(config, Able(block, snapshot_fs=fs))
    assert (choice.kind, choice.disk, choice.initrd) == expected
    assert choice.reason


@pytest.mark.parametrize(
    ("config", "block", "fs", "message"),
    [
        (LINUX._replace(mount_rootfs=True), EXT, "xfs", "guest linux cannot mount xfs .it can: ext2, ext3, ext4"),
        (LINUX._replace(mount_rootfs=True), EXT, "", "snapshot is not a block device"),
        (LINUX._replace(mount_rootfs=True), NO_BLOCK, "ext4", "guest linux cannot use a block device"),
        (LINUX._replace(block="/disk", block_mount="/"), EXT, "ext4", "the image's own disk image /disk"),
    ],
)
def test_what_is_not_offered_says_so(config: GuestConfig, block: BlockSupport, fs: str, message: str) -> None:
    with pytest.raises(Unimplemented, match=message):
        choose_rootfs(config, Able(block, snapshot_fs=fs))


def test_our_own_wish_that_cannot_be_is_the_images_fault() -> None:
    with pytest.raises(BadContent, match=r"org\.unikeel\.rootfs=block: the container's snapshot is not a block device"):
        choose_rootfs(LINUX._replace(rootfs="block"), Able(EXT))


DISK = Able(EXT, snapshot_fs="ext4", image_disk=True)
SHARING = Able(EXT, snapshot_fs="ext4", shared=("virtiofs", "9p"))


@pytest.mark.parametrize(
    ("config", "able", "kind", "reason"),
    [
        # The order of urunc.md 5.1: each line has everything that the next one has, and one thing more that wins.
        (LINUX, DISK, Rootfs.NONE, "the image asks for no root file system"),
        (LINUX._replace(mount_rootfs=True), SHARING, Rootfs.SNAPSHOT, "mountRootfs, and linux can use ext4"),
        (
            LINUX._replace(mount_rootfs=True),
            SHARING._replace(snapshot_fs="xfs"),
            Rootfs.SHARED,
            "mountRootfs by virtiofs: guest linux cannot mount xfs (it can: ext2, ext3, ext4)",
        ),
        (
            LINUX._replace(mount_rootfs=True),
            SHARING._replace(snapshot_fs="", shared=("9p",)),
            Rootfs.SHARED,
            "mountRootfs by 9p: the container's snapshot is not a block device",
        ),
        (
            LINUX._replace(mount_rootfs=True, block="/d", block_mount="/"),
            DISK,
            Rootfs.IMAGE_DISK,
            "the image's own disk /d is to be /",
        ),
        (
            LINUX._replace(mount_rootfs=True, initrd="/i"),
            DISK,
            Rootfs.INITRD,
            "the image names the initrd /i",
        ),
        (
            LINUX._replace(mount_rootfs=True, initrd="/i", rootfs="block"),
            DISK,
            Rootfs.SNAPSHOT,
            "org.unikeel.rootfs=block, loaded by the initrd /i",
        ),
    ],
)
def test_the_order_and_the_reasons(config: GuestConfig, able: Able, kind: Rootfs, reason: str) -> None:
    choice = choose_rootfs(config, able)
    assert (choice.kind, choice.reason) == (kind, reason)
    assert bool(choice.share) is (kind is Rootfs.SHARED)


def test_a_guest_without_block_devices_gets_a_shared_directory_instead_of_the_images_disk() -> None:
    config = GuestConfig("unikraft", "qemu", "/k", block="/d", block_mount="/", mount_rootfs=True)
    able = Able(NO_BLOCK, snapshot_fs="ext4", shared=("9p",), image_disk=True)
    choice = choose_rootfs(config._replace(block="", block_mount=""), able)
    assert (choice.kind, choice.share) == (Rootfs.SHARED, "9p")
    with pytest.raises(
        Unimplemented, match="the image's own disk image /d cannot be attached at /: it can be the root"
    ):
        choose_rootfs(config, able)


def test_an_initrd_that_the_guest_cannot_use_is_the_images_fault() -> None:
    config = GuestConfig("rumprun", "hvt", "/k", initrd="/i")
    with pytest.raises(BadContent, match="guest rumprun cannot use an initrd"):
        choose_rootfs(config, Able(guest("rumprun").block, guest("rumprun").initrd))


def test_a_disk_of_the_images_own_that_nobody_attaches_is_never_passed_over() -> None:
    for config in (
        LINUX._replace(initrd="/i", block="/d", block_mount="/data"),
        LINUX._replace(initrd="/i", block="/d", block_mount="/"),
        LINUX._replace(mount_rootfs=True, block="/d", block_mount="/data"),
        LINUX._replace(block="/d"),
    ):
        for able in (Able(EXT, snapshot_fs="ext4"), DISK):
            with pytest.raises(Unimplemented, match="the image's own disk image /d cannot be attached"):
                choose_rootfs(config, able)


@pytest.mark.parametrize(("wish", "share"), [("shared", "virtiofs"), ("virtiofs", "virtiofs"), ("9p", "9p")])
def test_a_shared_root_as_asked_wins_over_everything(wish: str, share: str) -> None:
    choice = choose_rootfs(LINUX._replace(mount_rootfs=True, initrd="/i", rootfs=wish), SHARING)
    assert (choice.kind, choice.share, choice.initrd, choice.disk) == (Rootfs.SHARED, share, False, False)
    assert choice.reason.startswith(f"org.unikeel.rootfs={wish}")


def test_a_shared_root_that_cannot_be_says_why() -> None:
    without = SHARING._replace(shared=("9p",), no_share="virtiofs needs virtiofsd, which is not installed")
    with pytest.raises(Unimplemented, match=r"org\.unikeel\.rootfs=virtiofs: there is only 9p"):
        choose_rootfs(LINUX._replace(rootfs="virtiofs"), without)
    with pytest.raises(Unimplemented, match="virtiofs needs virtiofsd, which is not installed"):
        choose_rootfs(LINUX._replace(rootfs="shared"), without._replace(shared=()))
    with pytest.raises(Unimplemented, match="guest generic and monitor qemu have no shared directories in common"):
        choose_rootfs(GENERIC._replace(rootfs="shared"), Able(ANY, snapshot_fs="ext4"))
