"""The image that snapshots are made of: five layers with so many megabytes in all that do not compress; the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from typing import Final

from unikeel.images.digests import chain_id
from unikeel.values import NamedTuple

NAME: Final = "bench.unikeel/layered:1"
#: Shares of the layers, in 16ths of the whole.
_SHARES: Final = (8, 4, 2, 1, 1)
#: In each layer a file of this name with the layer's number.
FILE: Final = "data"
_PIECE: Final = 1 << 20
_SEED: Final = 0


class Layered(NamedTuple):
    """The archive, and the chain ID of its topmost layer: the name of the committed snapshot that unpacking it gives."""

    archive: bytes
    chain_id: str


def made(mebibytes: int) -> Layered:
    """The image as an OCI archive. :param mebibytes: a multiple of 16."""
    numbers = random.Random(_SEED)  # noqa: S311 - the same bytes every time is what is wanted
    return packed(
        NAME,
        [
            {f"{FILE}{index}": b"".join(numbers.randbytes(_PIECE) for _ in range(share * mebibytes // 16))}
            for index, share in enumerate(_SHARES)
        ],
    )


def packed(name: str, contents: Sequence[Mapping[str, bytes]]) -> Layered:
    """An image of this name with these layers, the lowest first: path → bytes of each file; directories are made as they are needed."""
    blobs: dict[str, bytes] = {}
    layers, diff_ids = [], []
    for content in contents:
        layer = _tar(content)
        diff_ids.append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        layers.append(_blob(blobs, "layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0)))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["none"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, "config.v1+json", _json(config)),
        "layers": layers,
    }
    listed = _blob(blobs, "manifest.v1+json", _json(manifest))
    listed["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index_of = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed]}
    entries = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index_of), **blobs}
    return Layered(_tar(entries), chain_id(diff_ids))


def _blob(blobs: dict[str, bytes], kind: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = content
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def _tar(entries: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries.items():
            for directory in reversed(_above(name)):
                if directory not in made:
                    made.add(directory)
                    item = tarfile.TarInfo(directory)
                    item.type, item.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(item)
            item = tarfile.TarInfo(name)
            item.mode, item.size = 0o644, len(content)
            tar.addfile(item, io.BytesIO(content))
    return target.getvalue()


def _above(name: str) -> list[str]:
    """The directories that a path lies in, the innermost first."""
    return [name[:place] for place, letter in enumerate(name) if letter == "/"][::-1]


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
