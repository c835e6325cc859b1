"""Images made by tests: whole, and damaged in ways that only a test would think of."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
CONTENT = {"boot/kernel": b"kernel" * 100, "etc/motd": b"hello\n"}


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar of files; a TarInfo stands for an entry without content, or for one that lies about itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()


@dataclass
class Layout:
    """An OCI layout as files in memory; tests change ``files`` and write it as a directory or an archive."""

    files: dict[str, bytes] = field(default_factory=lambda: {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes) -> tuple[str, int]:
        self.files["blobs/sha256/" + digest(data).removeprefix("sha256:")] = data
        return digest(data), len(data)

    def descriptor(self, data: bytes, media_type: str, **more: object) -> dict[str, Any]:
        found, size = self.blob(data)
        return {"mediaType": media_type, "digest": found, "size": size, **more}

    def image(
        self,
        layers: Sequence[bytes] = (),
        *,
        annotations: Mapping[str, str] | None = None,
        media_type: str = MANIFEST,
        layer_type: str = LAYER,
        changes: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """Add an image's blobs; returns its descriptor."""
        layers = layers or [tar_of(CONTENT)]
        parts = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Labels": {"label": "1"}, "Cmd": ["run"], "Env": ["A=b"], "WorkingDir": "/srv", "User": "0:0"},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            **(config or {}),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.descriptor(dumps(parts), CONFIG),
            "layers": [self.descriptor(layer, layer_type) for layer in layers],
            "annotations": dict(annotations or {}),
            **(changes or {}),
        }
        return self.descriptor(dumps(manifest), media_type)

    def add(self, entry: dict[str, Any], name: str = "", **more: object) -> Layout:
        """List a descriptor in the index."""
        self.entries.append({**entry, **more, **({"annotations": {REF_NAME: name}} if name else {})})
        return self

    def all_files(self) -> dict[str, bytes]:
        index = dumps({"schemaVersion": 2, "manifests": self.entries})
        return {"index.json": index, **self.files}

    def write(self, directory: str) -> str:
        for path, content in self.all_files().items():
            whole = os.path.join(directory, path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "wb") as file:
                file.write(content)
        return directory

    def archive(self, path: str) -> str:
        return save(path, tar_of(self.all_files()))


def one(name: str = "web:1", **arguments: Any) -> Layout:
    """A layout of one image."""
    layout = Layout()
    return layout.add(layout.image(**arguments), name)


def docker_archive(
    layers: Sequence[bytes] = (),
    tags: Sequence[str] = ("docker.io/library/web:1",),
    changes: Mapping[str, object] | None = None,
) -> dict[str, bytes | tarfile.TarInfo]:
    """The members of what ``docker save`` wrote before its version 25."""
    layers = layers or [tar_of(CONTENT)]
    config = dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(x) for x in layers]}}
    )
    name = digest(config).removeprefix("sha256:") + ".json"
    members = [f"{number}/layer.tar" for number in range(len(layers))]
    entry = {"Config": name, "RepoTags": list(tags), "Layers": members, **(changes or {})}
    return {**dict(zip(members, layers, strict=True)), name: config, "manifest.json": dumps([entry])}


def save(path: str, data: bytes) -> str:
    with open(path, "wb") as file:
        file.write(data)
    return path


def tree(directory: str) -> dict[str, tuple[int, bytes]]:
    """Everything below a directory: modes and contents."""
    found: dict[str, tuple[int, bytes]] = {}
    for parent, directories, files in os.walk(directory):
        for name in directories + files:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, directory)] = (mode, content)
    return found
