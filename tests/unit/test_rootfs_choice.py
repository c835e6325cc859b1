"""Which root file system a guest gets: urunc's order, and our extension."""

from __future__ import annotations

import pytest

from unikeel.errors import BadContent, Unimplemented
from unikeel.guests import guest
from unikeel.model.image_fields import GuestConfig
from unikeel.model.rootfs import BlockSupport, Rootfs, choose_rootfs

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
    choice = choose_rootfs(config, block, fs)
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
        choose_rootfs(config, block, fs)


def test_our_own_wish_that_cannot_be_is_the_images_fault() -> None:
    with pytest.raises(BadContent, match=r"org\.unikeel\.rootfs=block: the container's snapshot is not a block device"):
        choose_rootfs(LINUX._replace(rootfs="block"), EXT, "")
