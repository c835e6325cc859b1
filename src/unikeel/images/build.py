"""From a directory (or flags) to an OCI image: the same input gives the same digest."""

from __future__ import annotations

import os

from unikeel.errors import InvalidArgument, NotFound, PermissionDenied
from unikeel.images import description, manifests, packing, references
from unikeel.images.compressing import SUFFIX, compressing
from unikeel.images.description import Description, Overrides
from unikeel.images.documents import MAX_BYTES
from unikeel.images.manifests import Descriptor, Image
from unikeel.images.outputs import targets
from unikeel.images.progress import Progress, silent
from unikeel.images.staging import Loaded, Staging, put_image
from unikeel.images.store import ImageStore
from unikeel.lean import Final

_URUNC: Final = "/urunc.json"
_MAX_TIME: Final = 1 << 33


def build(
    directory: str | None = None,
    *,
    output: str | None = None,
    store: ImageStore | None = None,
    name: str | None = None,
    overrides: Overrides | None = None,
    progress: Progress | None = None,
) -> Image:
    """Pack an image and write it to a store, to an OCI layout directory or to an OCI archive.

    :param directory: holds ``image.toml`` and what it names; may be left out if the flags say all.
    :param output: a file that ends in ``.tar``, which is replaced, or a directory, which is made or, if it is an OCI layout,
        added to. :param store: where to put the image; one of both is needed, both is fine.
    :param name: instead of the description's.
    :raise InvalidArgument: the description is wrong, or what it names is not there after all layers are merged.
    :raise NotFound, PermissionDenied: a file that it names. :raise AlreadyExists: the output is something else.
    :raise ResourceExhausted: no space.
    """
    if output is None and store is None:
        raise InvalidArgument("an image can be built into a store or an output, and neither is given")
    found = described(directory, overrides or Overrides())
    wanted = references.canonical(name or found.name) if name or found.name else ""
    values = description.annotations_of(found)
    layers = _contents(found, description.urunc_json(values))
    total = sum(item.size for layer in layers for item in layer.values())
    image: Image | None = None
    for target in targets(output, store):
        with target as layout, layout.staging() as staging:
            teller = _Teller(progress or silent, f"building {wanted or 'an image'}", total)
            loaded = _stage(staging, found, values, layers, teller)
            layout.commit(staging, [(wanted, loaded.entry)])
            image = loaded.named(wanted)
    if image is None:
        raise InvalidArgument("nothing was built")
    return image


def described(directory: str | None, flags: Overrides) -> Description:
    """The description of a directory, if one is given, with flags applied and everything checked."""
    found = Description()
    if directory is not None:
        has_tree = os.path.isdir(os.path.join(directory, "tree"))
        found = description.parse(_text(directory, needed=not has_tree), directory, has_tree=has_tree)
    is_directory = flags.rootfs is not None and os.path.isdir(flags.rootfs)
    return description.checked(description.overridden(found, flags, rootfs_is_directory=is_directory))


def _text(directory: str, *, needed: bool) -> str:
    path = os.path.join(directory, description.FILE)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        if not needed:
            return ""
        raise NotFound(f"there is no {path}", "write one, or give flags instead of a directory") from error
    except PermissionError as error:
        raise PermissionDenied(f"{path} may not be read") from error
    if len(data) > MAX_BYTES:
        raise InvalidArgument(f"{path} has more than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} is not valid UTF-8: {error}") from error


def _contents(found: Description, urunc: bytes) -> list[packing.Items]:
    """What goes into each layer; ``/urunc.json`` goes to where the kernel is."""
    layers: list[packing.Items] = []
    for source in found.layers:
        items = packing.scan(source.tree) if source.tree else {}
        for path, host in sorted(source.files.items()):
            packing.add_file(items, path, host)
        if _URUNC.lstrip("/") in items:
            raise InvalidArgument(f"{source.tree or 'files'} has a {_URUNC} already", "remove it: the build writes it")
        layers.append(items)
    merged = packing.merge(layers)
    for key in ("kernel", "initrd", "block"):
        path = getattr(found, key)
        if path and packing.regular_file(merged, path) is None:
            raise InvalidArgument(
                f"the image has no file {path}, which is named as its {key}", "add it to a tree or files"
            )
    kernel = packing.regular_file(merged, found.kernel)
    holding = next((layer for layer in layers if any(item is kernel for item in layer.values())), layers[-1])
    packing.add_data(holding, _URUNC, urunc)
    return layers


def _stage(
    staging: Staging, found: Description, values: dict[str, str], layers: list[packing.Items], teller: _Teller
) -> Loaded:
    import json

    time = _time()
    blobs = [_layer(staging, layer, found.compression, time, teller) for layer in layers]
    config = _config(found, values, [diff_id for _, diff_id in blobs], time)
    data = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    return put_image(staging, data, [blob for blob, _ in blobs], values)


def _config(found: Description, values: dict[str, str], diff_ids: list[str], time: int) -> dict[str, object]:
    import datetime as dt

    optional: dict[str, object] = {
        "Entrypoint": list(found.entrypoint),
        "Cmd": list(found.cmd),
        "Env": list(found.env),
        "WorkingDir": found.workdir,
        "User": found.user,
    }
    run = {"Labels": {**values, **found.labels}, **{key: value for key, value in optional.items() if value}}
    created = dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "created": created,
        "architecture": found.architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def _time() -> int:
    """The time of everything: 0, or ``SOURCE_DATE_EPOCH`` (reproducible-builds.org)."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) < _MAX_TIME):
        raise InvalidArgument(f"SOURCE_DATE_EPOCH is {text[:40]!r}, which is not a time in seconds since 1970")
    return int(text)


class _Teller:
    """Adds up what is done."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._done = 0

    def __call__(self, size: int) -> None:
        self._done += size
        self._progress(self._what, self._done, self._total)


def _layer(
    staging: Staging, items: packing.Items, compression: str, time: int, teller: _Teller
) -> tuple[Descriptor, str]:
    """One layer's blob and its diff id."""
    with staging.writer() as writer:
        if compression == "none":
            packing.write_tar(items, writer, time, teller)
            diff_id = writer.digest
        else:
            with compressing(compression, writer, staging.directory) as sink:
                packing.write_tar(items, sink, time, teller)
                diff_id = sink.finish()
        digest = staging.keep(writer)
        return Descriptor(manifests.OCI_LAYER + SUFFIX[compression], digest, writer.size), diff_id
