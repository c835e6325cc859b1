"""What an image is to be: ``image.toml`` or flags, checked, and the annotations that follow from it.

Pure: paths are computed, but no file other than the description is looked at.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from unikeel.errors import BadContent, InvalidArgument
from unikeel.lean import Final, TypeVar
from unikeel.model.image_config import from_annotations
from unikeel.model.image_fields import OWN_PREFIX, PREFIX

FILE: Final = "image.toml"
COMPRESSIONS: Final = ("none", "gzip", "zstd")
MAX_LAYERS: Final = 100
_MAX_PATH: Final = 4096
_PATH: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
_ARCHITECTURES: Final = ("amd64", "arm64", "riscv64")

#: From a description's key to the annotation that says the same (urunc's names).
_ANNOTATION_OF: Final = {
    "type": "unikernelType",
    "monitor": "hypervisor",
    "kernel": "binary",
    "initrd": "initrd",
    "version": "unikernelVersion",
    "block": "block",
    "block_mount": "blkMntPoint",
    "cmdline": "cmdline",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class LayerSource:
    """What goes into one layer: a directory's content ("" for none), then single files (image path → host path)."""

    tree: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """An image to be built. Paths within the image are absolute; ``compression`` is ``none``, ``gzip`` or ``zstd``."""

    name: str = ""
    kernel: str = ""
    initrd: str = ""
    type: str = "linux"
    monitor: str = "qemu"
    version: str = ""
    block: str = ""
    block_mount: str = ""
    mount_rootfs: bool = False
    cmdline: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    architecture: str = "amd64"
    compression: str = "none"
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[LayerSource, ...] = ()


@dataclass(frozen=True)
class Overrides:
    """Flags that say it instead of ``image.toml``, or against it; None leaves a key as it is.

    ``kernel``, ``initrd`` and ``rootfs`` are paths on this host: a kernel and an initrd are put into the image as
    ``/boot/kernel`` and ``/boot/initrd``, a root file system that is a directory becomes the image's tree, one that is a
    file becomes its disk ``/disk.img``. ``annotations`` and ``labels`` are added to those of the file.
    """

    kernel: str | None = None
    initrd: str | None = None
    rootfs: str | None = None
    type: str | None = None
    monitor: str | None = None
    version: str | None = None
    cmdline: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    workdir: str | None = None
    user: str | None = None
    architecture: str | None = None
    compression: str | None = None
    mount_rootfs: bool | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


_SIMPLE: Final = tuple(
    name for name in (entry.name for entry in fields(Description)) if name not in ("annotations", "labels", "layers")
)
_KEYS: Final = (*_SIMPLE, "annotations", "labels", "files", "layers")
_LAYER_KEYS: Final = ("tree", "files")


def parse(text: str, directory: str, *, has_tree: bool) -> Description:
    """Read a description.

    :param directory: where it lies; the files and trees that it names lie beneath. :param has_tree: whether there is a
        directory ``tree`` beside it, which is the first layer where the description lists none.
    :raise InvalidArgument: not TOML, an unknown key (the message has the nearest), a value that cannot be.
    """
    import tomllib

    where = os.path.join(directory, FILE)
    try:
        table: dict[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where} is not valid TOML: {error}") from error
    _check_keys(table, _KEYS, where)
    default = Description()
    simple = {key: _like(table[key], getattr(default, key), f"{where}: {key}") for key in _SIMPLE if key in table}
    return replace(
        default,
        **simple,
        annotations=_texts(table.get("annotations", {}), f"{where}: annotations"),
        labels=_texts(table.get("labels", {}), f"{where}: labels"),
        layers=_layers(table, directory, where, has_tree=has_tree),
    )


def overridden(found: Description, flags: Overrides, *, rootfs_is_directory: bool) -> Description:
    """A description with flags applied. :param rootfs_is_directory: what ``flags.rootfs`` names, if it names something."""
    changes = {
        entry.name: getattr(flags, entry.name)
        for entry in fields(Overrides)
        if entry.name not in ("kernel", "initrd", "rootfs", "annotations", "labels")
        and getattr(flags, entry.name) is not None
    }
    files: dict[str, str] = {}
    layers = list(found.layers)
    for key, host in (("kernel", flags.kernel), ("initrd", flags.initrd)):
        if host is not None:
            changes[key] = f"/boot/{key}"
            files[f"/boot/{key}"] = host
    if flags.rootfs is not None and rootfs_is_directory:
        layers.append(LayerSource(flags.rootfs))
    elif flags.rootfs is not None:
        files["/disk.img"] = flags.rootfs
        changes.update(block="/disk.img", block_mount=found.block_mount or "/")
    if files:
        last = layers.pop() if layers else LayerSource()
        layers.append(LayerSource(last.tree, {**last.files, **files}))
    return replace(
        found,
        **changes,
        annotations={**found.annotations, **flags.annotations},
        labels={**found.labels, **flags.labels},
        layers=tuple(layers),
    )


def checked(found: Description) -> Description:
    """The same description, after a look at values that depend on each other.

    :raise InvalidArgument: a path that cannot be one, a word that cannot be one, no kernel, nothing to pack.
    """
    for key in ("kernel", "initrd", "block", "block_mount", "workdir"):
        value = getattr(found, key)
        if value:
            check_image_path(value, key)
    for key, known in (("compression", COMPRESSIONS), ("architecture", _ARCHITECTURES)):
        if getattr(found, key) not in known:
            raise InvalidArgument(f"{key} {getattr(found, key)!r} is unknown", f"one of {', '.join(known)}")
    for entry in found.env:
        if "=" not in entry or entry.startswith("="):
            raise InvalidArgument(f"env {entry[:100]!r} is not of the form NAME=VALUE")
    for key in ("kernel", "type", "monitor"):
        if not getattr(found, key):
            raise InvalidArgument(f"the image has no {key}", f"name it in {FILE} ({key} = …) or by a flag")
    if not found.layers:
        raise InvalidArgument("the image has no content", f"a directory tree beside {FILE}, [files] or [[layers]]")
    if len(found.layers) > MAX_LAYERS:
        raise InvalidArgument(f"the image has {len(found.layers)} layers, more than {MAX_LAYERS}")
    if found.block_mount and not found.block:
        raise InvalidArgument("block_mount is given, but no block")
    return found


def annotations_of(found: Description) -> dict[str, str]:
    """The image's annotations: urunc's names for what the description says, then its own.

    :raise InvalidArgument: one of its own says again what a key of the description says, or a value breaks the rules of
        :mod:`unikeel.model.image_config`.
    """
    said = {PREFIX + name: getattr(found, key) for key, name in _ANNOTATION_OF.items()}
    if found.block:
        said[PREFIX + "blkMntPoint"] = found.block_mount or "/"
    if found.mount_rootfs:
        said[PREFIX + "mountRootfs"] = "true"
    said = {name: value for name, value in said.items() if value}
    twice = sorted(set(said) & set(found.annotations))
    if twice:
        raise InvalidArgument(f"annotation {twice[0]} is given twice", "leave it out of annotations")
    values = {**said, **found.annotations}
    try:
        from_annotations(values, "the image's description")
    except BadContent as error:
        raise InvalidArgument(error.message, error.hint) from error
    return values


def urunc_json(values: Mapping[str, str]) -> bytes:
    """The image's ``/urunc.json``: one flat object of what is urunc's and ours, every value in base64."""
    import base64
    import json

    encoded = {
        name: base64.b64encode(value.encode()).decode()
        for name, value in values.items()
        if name.startswith((PREFIX, OWN_PREFIX))
    }
    return json.dumps(encoded, sort_keys=True, indent=1).encode() + b"\n"


def check_image_path(path: str, what: str) -> None:
    """Whether a path can name a file of an image as urunc reads it. :raise InvalidArgument: it cannot."""
    if (
        not path.startswith("/")
        or path.startswith("//")
        or posixpath.normpath(path) != path
        or len(path) > _MAX_PATH
        or not _PATH.issuperset(path)
    ):
        raise InvalidArgument(f"{what} {path[:200]!r} is not a plain absolute path", "letters, digits and . _ - / only")


def _layers(table: Mapping[str, object], directory: str, where: str, *, has_tree: bool) -> tuple[LayerSource, ...]:
    files = _files(table.get("files", {}), directory, f"{where}: files")
    listed = table.get("layers")
    if listed is None:
        tree = os.path.join(directory, "tree") if has_tree else ""
        return (LayerSource(tree, files),) if tree or files else ()
    if not isinstance(listed, list) or not listed:
        raise InvalidArgument(f"{where}: layers is not a list of tables")
    found = [_layer(entry, directory, f"{where}: layers[{number}]") for number, entry in enumerate(listed)]
    if files:
        found[-1] = LayerSource(found[-1].tree, {**found[-1].files, **files})
    return tuple(found)


def _layer(entry: object, directory: str, where: str) -> LayerSource:
    if not isinstance(entry, dict):
        raise InvalidArgument(f"{where} is not a table")
    _check_keys(entry, _LAYER_KEYS, where)
    tree = _like(entry.get("tree", ""), "", f"{where}: tree")
    files = _files(entry.get("files", {}), directory, f"{where}: files")
    if not tree and not files:
        raise InvalidArgument(f"{where} has neither a tree nor files")
    return LayerSource(_beneath(directory, tree, where) if tree else "", files)


def _files(value: object, directory: str, where: str) -> dict[str, str]:
    found = {}
    for path, source in _texts(value, where).items():
        check_image_path(path, where)
        found[path] = _beneath(directory, source, where)
    return found


def _beneath(directory: str, path: str, where: str) -> str:
    """A host path that a description names: it stays beneath the description's directory, also through links."""
    joined = os.path.join(directory, path)
    root = os.path.realpath(directory)
    if os.path.isabs(path) or os.path.commonpath([root, os.path.realpath(joined)]) != root:
        raise InvalidArgument(f"{where}: {path!r} is not beneath {directory}", "copy it there")
    return joined


def _check_keys(table: Iterable[str], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, list(known), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InvalidArgument(f"{where}: unknown key {key[:100]!r}", hint)


def _like(value: object, default: _T, what: str) -> _T:
    """A value of the type of a default."""
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return type(default)(_clean(item, what) for item in value)
        raise InvalidArgument(f"{what} is not a list of texts")
    if type(value) is not type(default):
        raise InvalidArgument(f"{what} is not {'true or false' if isinstance(default, bool) else 'a text'}")
    if isinstance(value, str):
        _clean(value, what)
    return value


def _clean(value: str, what: str) -> str:
    if "\0" in value:
        raise InvalidArgument(f"{what} holds a NUL character")
    return value


def _texts(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where} is not a table")
    return {key: _like(item, "", f"{where}: {key}") for key, item in value.items()}
