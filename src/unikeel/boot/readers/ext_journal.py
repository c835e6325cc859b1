"""What lies outside the superblock and still says that an ext file system is not at rest: its journal and its MMP block.

A clean unmount leaves the journal empty and the flag ``needs_recovery`` unset. The flag alone is not believed: where it was
lost and the journal is not empty (what e2fsck calls inconsistent, and a kernel passes over in silence), the plain content is
stale. Source: Documentation/filesystems/ext4 (journal, multiple mount protection). The journal's numbers are big-endian.
"""

from __future__ import annotations

import struct

from unikeel.boot.readers.ext_inode import read_journal_inode
from unikeel.boot.readers.ext_map import file_map
from unikeel.boot.readers.ext_super import ExtSuper, needs_recovery
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

_JOURNAL_MAGIC = 0xC03B3998
_JOURNAL_HEAD = struct.Struct(">9I")
_VERSIONS = (3, 4)
_MMP_MAGIC = 0x4D4D50
_MMP_CLEAN = 0xFF4D4D50
_MMP_CHECKED = 0xE24D4D50


def check_at_rest(image: Image, fs: ExtSuper) -> None:
    """Refuse what is in use or half written.

    :raises BadContent: the journal is not empty, holds an error or is damaged; another machine has the file system in use.
    """
    if fs.mmp_block:
        _check_mmp(image, fs)
    if fs.journal_inode:
        _check_journal(image, fs)


def _check_mmp(image: Image, fs: ExtSuper) -> None:
    if not fs.first_block < fs.mmp_block < fs.blocks:
        raise BadContent("the block for multiple mount protection (feature mmp) lies outside the file system")
    raw = image.metadata(fs.mmp_block * fs.block_size, 8, "the block for multiple mount protection")
    magic, sequence = struct.unpack("<2I", raw)
    if magic != _MMP_MAGIC:
        raise BadContent("the block for multiple mount protection (feature mmp) is damaged")
    if sequence == _MMP_CHECKED:
        raise needs_recovery("a check of it was not finished (feature mmp)")
    if sequence != _MMP_CLEAN:
        raise needs_recovery("it is in use, or was not cleanly unmounted (feature mmp)")


def _check_journal(image: Image, fs: ExtSuper) -> None:
    inode = read_journal_inode(image, fs)
    first = file_map(image, fs, inode, fs.block_size)[:1]
    if not first or first[0].physical is None:
        raise BadContent("the journal is damaged: it has no first block")
    raw = image.metadata(first[0].physical, _JOURNAL_HEAD.size, "the journal's superblock")
    magic, kind, _, size, *_, start, error = _JOURNAL_HEAD.unpack(raw)
    if magic != _JOURNAL_MAGIC or kind not in _VERSIONS or size != fs.block_size:
        raise BadContent("the journal is damaged: it does not begin with its superblock")
    if start:
        raise needs_recovery("its journal is not empty")
    if error:
        raise needs_recovery("an error is recorded in its journal")
