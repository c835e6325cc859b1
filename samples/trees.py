"""A directory that becomes a layer: every mode is said here, so that the builder's umask has no say in an image."""

from __future__ import annotations

import os
import shutil


class Tree:
    """A layer's content, rooted at a directory of the host. Paths are absolute, as the guest sees them."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, exist_ok=True)

    def host(self, path: str) -> str:
        """Where a path lies on the host; the directories above it are made, with mode 0755."""
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts)):
            self._directory(parts[:depth], 0o755)
        return os.path.join(self.root, *parts)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """An empty directory."""
        self._directory([part for part in self.host(path)[len(self.root) :].split("/") if part], mode)

    def _directory(self, parts: list[str], mode: int) -> None:
        where = os.path.join(self.root, *parts)
        if not os.path.isdir(where):
            os.mkdir(where)
            os.chmod(where, mode)

    def write(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """A file with this content."""
        host = self.host(path)
        with open(host, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.chmod(host, mode)

    def copy(self, path: str, source: str, mode: int = 0o644) -> None:
        """A copy of a file of the host."""
        host = self.host(path)
        shutil.copyfile(source, host)
        os.chmod(host, mode)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        os.symlink(target, self.host(path))

    def link(self, path: str, existing: str) -> None:
        """A second name of a file of this tree."""
        os.link(self.host(existing), self.host(path))
