"""What is there: containerd's version, its configuration, and the files that it imports."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import Any, Final

from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound
from unikeel.install import toml_edit
from unikeel.install.changes import current
from unikeel.install.texts import runtime_path, transfer_path
from unikeel.values import NamedTuple

_MIGRATE: Final = "`containerd config migrate` prints it as a newer one"
_MOST_IMPORTS: Final = 256


class Situation(NamedTuple):
    """``text`` ``None``: there is no main configuration. ``block``: our table goes into the main file itself, not into one that it imports."""

    config: str
    text: str | None
    version: int
    block: bool
    containerd: tuple[int, int] | None = None
    imported: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """What the main configuration means."""
        return toml_edit.parse(self.text or "", self.config)

    @property
    def drop_in(self) -> str:
        """Where a file of our own goes."""
        return os.path.join(os.path.dirname(self.config), "conf.d", "unikeel.toml")


def containerd_version(program: str = "containerd") -> tuple[int, int] | None:
    """Major and minor version of the containerd on the PATH; ``None`` if there is none that says."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(?<![\w/])v?(\d{1,3})\.(\d{1,3})(?:[.+~-]|\s|$)", done.stdout.decode(errors="replace"))
    return (int(found[1]), int(found[2])) if found else None


def examine(config: str, containerd: tuple[int, int] | None) -> Situation:
    """Read the configuration and all that it imports.

    :raise NotFound: there is neither a configuration nor a containerd. :raise BadContent: one is no TOML. :raise InvalidArgument: it is too old.
    """
    data = current(config)
    text = None if data is None else _decoded(data, config)
    document = toml_edit.parse(text or "", config)
    version = _version(document, config, containerd, exists=text is not None)
    old = containerd[0] < 2 if containerd is not None else version == 2
    situation = Situation(config, text, version, old or toml_edit.has_block(text or ""), containerd)
    return situation._replace(imported=_imported(situation, document))


def _version(document: dict[str, Any], config: str, containerd: tuple[int, int] | None, *, exists: bool) -> int:
    version = document.get("version")
    if version is None and not any(key in document for key in toml_edit.VERSIONED):
        if containerd is None:
            what = f"{config} names no version" if exists else f"there is no {config}"
            raise NotFound(
                f"{what}, and no containerd on the PATH to ask for its own", "--containerd-config names another file"
            )
        return 2 if containerd[0] < 2 else 3 if containerd < (2, 3) else 4
    if version is None or version == 1:
        raise InvalidArgument(f"{config} is of version 1, which leaves no room for a runtime of ours", _MIGRATE)
    if version not in (2, 3, 4):
        raise InvalidArgument(f"{config} is of version {version!r}, which we do not know", _MIGRATE)
    return int(version)


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is not UTF-8, and thus no TOML") from None


def _imported(situation: Situation, document: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Every other file that containerd would read, as it finds them; not our own."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [(situation.config, document)]
    while waiting:
        parent, parsed = waiting.pop(0)
        for path in resolved(toml_edit.imports_of(parsed, parent), parent):
            if path in found or path in (situation.config, situation.drop_in):
                continue
            data = current(path)
            if data is None:
                raise FailedPrecondition(
                    f"{parent} imports {path}, which is not there", "containerd would not start with it either"
                )
            if len(found) >= _MOST_IMPORTS:
                raise FailedPrecondition(f"{situation.config} imports more than {_MOST_IMPORTS} files")
            found[path] = toml_edit.parse(_decoded(data, path), path)
            waiting.append((path, found[path]))
    return tuple(found.items())


def resolved(imports: list[str], parent: str) -> list[str]:
    """The paths that ``imports`` stand for: relative to the file that has them, and with ``*`` for what is there."""
    paths: list[str] = []
    for item in imports:
        path = os.path.normpath(os.path.join(os.path.dirname(parent), item))
        paths += sorted(glob.glob(path)) if "*" in path else [path]
    return paths


def covers(imports: list[str], parent: str, path: str) -> bool:
    """Whether a file would be imported once it is there."""
    from fnmatch import fnmatchcase

    def fits(item: str) -> bool:
        pattern = os.path.normpath(os.path.join(os.path.dirname(parent), item))
        same_depth = pattern.count("/") == path.count("/")
        return path == pattern or ("*" in pattern and same_depth and fnmatchcase(path, pattern))

    return any(fits(item) for item in imports)


def check_free(situation: Situation, handler: str) -> None:
    """:raise FailedPrecondition: the handler is somebody else's, or an import would hide ours."""
    path = runtime_path(situation.version)
    foreign = toml_edit.parse(toml_edit.without_block(situation.text or "", situation.config), situation.config)
    if handler in toml_edit.table_at(foreign, path):
        raise _taken(situation.config, handler)
    for name, document in situation.imported:
        if handler in toml_edit.table_at(document, path):
            raise _taken(name, handler)
        if situation.block and (situation.containerd or (1, 0))[0] < 2 and toml_edit.table_at(document, path[:2]):
            raise FailedPrecondition(
                f"{name}, which {situation.config} imports, has a table of its own for containerd's CRI plugin, and with containerd 1.x that replaces ours",
                f"--containerd-config {name} writes it there",
            )


def check_free_snapshotter(situation: Situation, name: str) -> None:
    """:raise FailedPrecondition: a plugin of this name is somebody else's."""
    for path, document in _foreign(situation):
        if name in toml_edit.table_at(document, ("proxy_plugins",)):
            raise FailedPrecondition(
                f"{path} has a plugin {name} already, which is not ours", "take it out, or choose another --snapshotter"
            )


def says_what_to_unpack(situation: Situation) -> bool:
    """Whether somebody else has told containerd 2.x which snapshotters it unpacks pulled images into."""
    *table, key = transfer_path()
    return any(key in toml_edit.table_at(document, tuple(table)) for _, document in _foreign(situation))


def _foreign(situation: Situation) -> list[tuple[str, dict[str, Any]]]:
    """The main configuration without what is ours, and all that it imports."""
    own = toml_edit.parse(toml_edit.without_block(situation.text or "", situation.config), situation.config)
    return [(situation.config, own), *situation.imported]


def _taken(path: str, handler: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{path} has a runtime {handler} already, which is not ours", "--runtime-class-handler names another"
    )
