"""``python -m samples.build [NAME…]``: builds the sample images into ``build/samples/NAME.tar``, each an OCI archive.

What is up to date is left alone: ``NAME.key`` beside an archive holds a digest of everything that went into it. Several
builds at once are safe, the second one waits.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from samples import compiling
from samples.debian import PackageError, Packages, cache_directory
from samples.images import SAMPLES, Sample, Workshop
from samples.kmod import ModuleMissing
from unikeel.errors import UnikeelError
from unikeel.images.build import build

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_PROJECT: Final = os.path.dirname(_HERE)
OUTPUT: Final = os.path.join(_PROJECT, "build", "samples")
#: Changes of these can change any image.
_BUILDERS: Final = (_HERE, os.path.join(_PROJECT, "src", "unikeel", "images"))


class NotReproducible(Exception):
    """Two builds of one image differ."""


class Builder:
    """Builds samples with one cache of packages."""

    def __init__(self, output: str, cache: str, *, refresh: bool = False) -> None:
        """:param refresh: take the packages that apt offers now."""
        self._output = output
        self._cache = cache
        self._refresh = refresh
        self._packages: Packages | None = None

    def packages(self) -> Packages:
        """The packages, looked up when the first sample needs some."""
        if self._packages is None:
            self._packages = Packages(self._cache, refresh=self._refresh, tell=_tell)
        return self._packages

    def bring_up_to_date(self, names: Sequence[str]) -> None:
        """Build what is missing or older than what it is made of."""
        os.makedirs(self._output, exist_ok=True)
        with _locked(self._output):
            todo = {name: key for name in names if not self._is_current(name, key := self._key(SAMPLES[name]))}
            if not todo:
                _tell(f"up to date: {', '.join(names)}")
                return
            for name, digest, seconds in self._build(list(todo), self._output):
                with open(self._key_file(name), "w", encoding="ascii") as file:
                    file.write(todo[name])
                _tell(f"{name}: {digest[:19]} in {seconds:.1f} s")

    def verify(self, names: Sequence[str]) -> None:
        """Build again elsewhere, with another umask, and compare. :raise NotReproducible: an image differs from its first build."""
        with tempfile.TemporaryDirectory(dir=self._output, prefix=".verify-") as other:
            old = os.umask(0o077)
            try:
                for name, _, _ in self._build(names, other):
                    first, second = (_digest(os.path.join(where, f"{name}.tar")) for where in (self._output, other))
                    if first != second:
                        raise NotReproducible(f"{name}: {first} and then {second}")
                    os.unlink(os.path.join(other, f"{name}.tar"))
                    _tell(f"{name}: built twice, the same bytes")
            finally:
                os.umask(old)

    def _build(self, names: Sequence[str], output: str) -> Iterator[tuple[str, str, float]]:
        """Name, digest and seconds of each image, as it is there."""
        with tempfile.TemporaryDirectory(dir=output, prefix=".work-") as work:
            workshop = Workshop(self.packages, work)
            for name in names:
                started = time.monotonic()
                context = os.path.join(work, f"context-{name}")
                os.mkdir(context)
                SAMPLES[name].make(workshop, context)
                image = build(context, output=os.path.join(output, f"{name}.tar"))
                shutil.rmtree(context)
                yield name, image.digest, time.monotonic() - started

    def _key_file(self, name: str) -> str:
        return os.path.join(self._output, f"{name}.key")

    def _is_current(self, name: str, key: str) -> bool:
        try:
            with open(self._key_file(name), encoding="ascii") as file:
                return file.read() == key and os.path.exists(os.path.join(self._output, f"{name}.tar"))
        except FileNotFoundError:
            return False

    def _key(self, sample: Sample) -> str:
        """A digest of everything that an image is made of and by."""
        digest = hashlib.sha256(f"{compiling.version()}\n{os.environ.get('SOURCE_DATE_EPOCH', '')}\n".encode())
        for directory in (*_BUILDERS, *(os.path.join(_HERE, name) for name in sample.sources)):
            for path in _sources(directory):
                digest.update(f"{os.path.relpath(path, _PROJECT)} {_digest(path)}\n".encode())
        for chosen in sample.packages:
            digest.update("".join(f"{package.sha256}\n" for package in chosen(self.packages())).encode())
        return digest.hexdigest()


def _sources(directory: str) -> list[str]:
    return sorted(entry.path for entry in os.scandir(directory) if entry.is_file() and not entry.name.endswith(".md"))


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(os.path.join(directory, ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _tell(text: str) -> None:
    print(f"samples: {text}", flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m samples.build", description="Build the sample images.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(SAMPLES)} (all, if none is named)")
    parser.add_argument("--output", default=OUTPUT, help="where the archives go (build/samples)")
    parser.add_argument("--refresh", action="store_true", help="take the packages that apt offers now")
    parser.add_argument("--verify", action="store_true", help="then build once more and compare")
    parsed = parser.parse_args(argv)
    for name in parsed.names:
        if name not in SAMPLES:
            parser.error(f"there is no sample {name}; there are {', '.join(SAMPLES)}")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parsed = _arguments(argv)
    names = parsed.names or list(SAMPLES)
    builder = Builder(os.path.abspath(parsed.output), cache_directory(os.environ), refresh=parsed.refresh)
    try:
        builder.bring_up_to_date(names)
        if parsed.verify:
            builder.verify(names)
    except (UnikeelError, PackageError, ModuleMissing, compiling.CompileError, NotReproducible, OSError) as error:
        print(f"samples: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
