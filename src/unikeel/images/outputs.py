"""Where a built image goes: a store, an OCI layout directory, or an OCI archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from unikeel.errors import AlreadyExists, NotFound
from unikeel.images import packing
from unikeel.images.layout import Layout
from unikeel.images.staging import Buffer, sync_directory, write_all, writing
from unikeel.images.store import ImageStore


def targets(output: str | None, store: ImageStore | None) -> list[AbstractContextManager[Layout]]:
    """A layout to commit to for each place; an archive or a new directory is there when its block ends well, else not."""
    found: list[AbstractContextManager[Layout]] = []
    if store is not None:
        found.append(nullcontext(store.layout))
    if output is not None:
        found.append(_archive(output) if output.endswith(".tar") else _directory(output))
    return found


@contextmanager
def _directory(output: str) -> Iterator[Layout]:
    new = not os.path.exists(output)
    if not new and not (os.path.isdir(output) and (_is_layout(output) or not os.listdir(output))):
        raise AlreadyExists(f"{output} exists and is no OCI layout", "name another output, or remove it")
    with writing(output):
        os.makedirs(output, exist_ok=True)
    try:
        yield Layout(output, mode=0o755)
    except BaseException:
        _clear(output, whole=new)
        raise
    _clear(output, whole=False)


def _is_layout(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, "oci-layout"))


def _clear(output: str, *, whole: bool) -> None:
    """Take away what building left: everything, or the place for temporary files unless another process uses it."""
    import shutil

    if whole:
        shutil.rmtree(output)
        return
    try:
        os.rmdir(os.path.join(output, "tmp"))
    except OSError:
        return


@contextmanager
def _archive(output: str) -> Iterator[Layout]:
    import shutil
    import tempfile

    parent = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(parent):
        raise NotFound(f"there is no directory {parent}")
    if os.path.isdir(output):
        raise AlreadyExists(f"{output} is a directory", "name another output, or remove it")
    with writing(parent):
        temporary = tempfile.mkdtemp(prefix=".unikeel-build-", dir=parent)
    try:
        layout = os.path.join(temporary, "layout")
        yield Layout(layout)
        _write_archive(layout, os.path.join(temporary, "archive"), output)
    finally:
        shutil.rmtree(temporary)


def _write_archive(layout: str, temporary: str, output: str) -> None:
    items: packing.Items = {}
    blobs = [f"/blobs/sha256/{name}" for name in os.listdir(os.path.join(layout, "blobs", "sha256"))]
    for path in ("/oci-layout", "/index.json", *blobs):
        packing.add_file(items, path, layout + path)
    with writing(output):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            packing.write_tar(items, _File(fd), 0, lambda _: None)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, output)
        sync_directory(os.path.dirname(os.path.abspath(output)))


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: Buffer) -> None:
        write_all(self._fd, data)
