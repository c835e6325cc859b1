"""Files from Debian packages, which are fetched but never installed.

The packages that the host's apt offers are looked up once and remembered with their checksums, in
``$UNIKEEL_CACHE/packages`` (``~/.cache/unikeel/packages``), so that later builds need no network and take the same ones::

    packages/bookworm.json          what was chosen, by group
    packages/nginx_….deb            the packages
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Final, NamedTuple, cast

_APT: Final = ("-q", "-o", "APT::Sandbox::User=root")
_ALTERNATIVE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class PackageError(Exception):
    """A package cannot be had; the message says which, and what apt said."""


class Package(NamedTuple):
    """A chosen package. ``file`` is its name in the cache."""

    name: str
    version: str
    sha256: str
    file: str


class Member(NamedTuple):
    """A file of a package: its bytes, or a symbolic link's target. Hard links and special files are not wanted anywhere here."""

    data: bytes
    target: str = ""


def cache_directory(environment: Mapping[str, str]) -> str:
    """Where packages are kept: ``$UNIKEEL_CACHE``, else ``$XDG_CACHE_HOME/unikeel``, else ``~/.cache/unikeel``."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", "/root"), ".cache")
    return os.path.join(environment.get("UNIKEEL_CACHE") or os.path.join(base, "unikeel"), "packages")


def fields(stanza: str) -> dict[str, str]:
    """The one-line fields of a control stanza (deb-control(5)), the first one if there are several stanzas."""
    lines = stanza.strip().partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line and not line.startswith((" ", "\t")))
    return {key: value.strip() for key, _, value in pairs}


def dependencies(depends: str) -> list[str]:
    """The names in a Depends field; of alternatives the first."""
    found = (_ALTERNATIVE.match(clause.strip()) for clause in depends.split(","))
    return list(dict.fromkeys(match[0] for match in found if match))


def normal(path: str) -> str:
    """Where a package's path lies on a system whose /bin, /sbin and /lib are links into /usr."""
    name = path.removeprefix(".").strip("/")
    return "usr/" + name if name.split("/", 1)[0] in ("bin", "sbin", "lib", "lib64") else name


def members(package: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Member]]:
    """The files and symbolic links of a package (a path of the host) whose normal path is wanted."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=cast("IO[bytes]", process.stdout), mode="r|") as archive:
            for item in archive:
                path = normal(item.name)
                if not wanted(path):
                    continue
                if item.issym():
                    yield path, Member(b"", item.linkname)
                elif item.isreg() and (file := archive.extractfile(item)) is not None:
                    yield path, Member(file.read())
        if process.wait():
            raise PackageError(f"{package} cannot be unpacked")


class Packages:
    """The packages of this host's release."""

    def __init__(self, directory: str, *, refresh: bool = False, tell: Callable[[str], None] = lambda _: None) -> None:
        """:param refresh: look up again what apt offers now, instead of what was chosen before."""
        self._directory = directory
        self._tell = tell
        os.makedirs(directory, exist_ok=True)
        self._memory = os.path.join(directory, f"{_release()}.json")
        self._groups = {} if refresh else _remembered(self._memory)

    def group(self, root: str, follow: Callable[[str], bool]) -> list[Package]:
        """A package and, of what it depends on, directly or not, what ``follow`` says yes to; fetched if they are not there.

        :raise PackageError: one cannot be had.
        """
        chosen = self._groups.get(root, [])
        if not chosen or not all(os.path.exists(self.path(package)) for package in chosen):
            chosen = self._choose(root, follow)
            self._groups[root] = chosen
            _remember(self._memory, self._groups)
        return chosen

    def path(self, package: Package) -> str:
        """Where the package lies on the host."""
        return os.path.join(self._directory, package.file)

    def _choose(self, root: str, follow: Callable[[str], bool]) -> list[Package]:
        """Choose and fetch; if that fails, once more with new lists, since mirrors drop what a newer version replaces."""
        try:
            return self._closure(root, follow)
        except PackageError:
            self._tell("updating apt's lists")
            _run(["apt-get", *_APT, "update"], "/")
            return self._closure(root, follow)

    def _closure(self, root: str, follow: Callable[[str], bool]) -> list[Package]:
        found: dict[str, Package] = {}
        waiting = [root]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            stanza = fields(_run(["apt-cache", "show", "--no-all-versions", name], "/"))
            if "SHA256" not in stanza:
                raise PackageError(f"apt knows no package {name}")
            found[name] = self._fetch(stanza)
            waiting.extend(needed for needed in dependencies(stanza.get("Depends", "")) if follow(needed))
        return [found[name] for name in sorted(found)]

    def _fetch(self, stanza: Mapping[str, str]) -> Package:
        name, version, digest = stanza["Package"], stanza["Version"], stanza["SHA256"]
        package = Package(name, version, digest, f"{name}_{digest[:16]}.deb")
        if os.path.exists(self.path(package)):
            return package
        self._tell(f"fetching {name} {version}")
        with tempfile.TemporaryDirectory(dir=self._directory) as temporary:
            _run(["apt-get", *_APT, "download", f"{name}={version}"], temporary)
            (file,) = os.listdir(temporary)
            fetched = os.path.join(temporary, file)
            with open(fetched, "rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                    raise PackageError(f"{name} is not the package that apt's lists promise")
            os.replace(fetched, self.path(package))
        return package


def _release() -> str:
    with open("/etc/os-release", encoding="utf-8") as file:
        found = re.search(r"^VERSION_CODENAME=(\w+)$", file.read(), re.MULTILINE)
    return found[1] if found else "debian"


def _run(command: list[str], directory: str) -> str:
    """What a command of apt prints. :raise PackageError: it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=600)
    except FileNotFoundError as error:
        raise PackageError(f"{command[0]} is not there: the samples are built on Debian") from error
    if done.returncode:
        raise PackageError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _remembered(path: str) -> dict[str, list[Package]]:
    try:
        with open(path, encoding="utf-8") as file:
            groups = json.load(file)
        return {root: [Package(*entry) for entry in entries] for root, entries in groups.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _remember(path: str, groups: Mapping[str, list[Package]]) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(groups, file, indent=1, sort_keys=True)
    os.replace(path + ".new", path)
