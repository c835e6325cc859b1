"""How a writable image is made from a committed one: shared blocks, else an overlay, else a sparse copy."""

from __future__ import annotations

import os

from unikeel.errors import Unavailable
from unikeel.kernel.reflink import clone_file
from unikeel.snapshots.contract import How


def make_writable(source: int, target: int, formats: frozenset[str]) -> How:
    """Give the empty file behind ``target`` the content of ``source``, in the cheapest way that works here.

    Sharing blocks is simply tried: where the file system cannot, the refusal costs a microsecond, and the answer may differ
    from file to file.

    :param formats: what the monitor takes; an overlay is made only with ``qcow2`` among them.
    :raise OSError: no space, or reading or writing failed; the target is then incomplete.
    """
    try:
        clone_file(source, target)
    except Unavailable:
        if "qcow2" in formats:
            from unikeel.snapshots.qcow2 import write_overlay

            write_overlay(target, os.fstat(source).st_size)
            return How.QCOW2
        from unikeel.kernel.sparse import sparse_copy

        sparse_copy(source, target)
        return How.COPY
    return How.REFLINK
