"""The lab's own images, OCI archives made from Debian's static busybox: ``busybox``, and ``pause`` for pods."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import Final

from lab import root
from lab.commands import Tell
from lab.configuration import PAUSE
from lab.errors import LabError
from lab.paths import cache

BUSYBOX: Final = "lab.unikeel/busybox:1"
_APPLETS: Final = (  # noqa: SIM905 - read like a command line
    "sh cat echo sleep true false ls ps kill head tail grep sed awk dd stty tty id env hostname mount umount df free touch mkdir rm "
    "ln mv cp date test wc seq yes sync sha256sum nc wget httpd ip top trap tr sort uniq find"
).split()
_VERSION: Final = "1"  # of what is built here
_IMAGES: Final = {"busybox": (BUSYBOX, ["sh"]), "pause": (PAUSE, ["sleep", "2147483647"])}


def archive(name: str) -> str:
    """The path of an image's archive, built if need be: ``busybox`` or ``pause``."""
    if name not in _IMAGES:
        raise LabError(f"the lab has no image {name}, only {', '.join(_IMAGES)}")
    path = cache("images", f"{name}-{_VERSION}.tar")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        reference, command = _IMAGES[name]
        with open(os.path.join(root.opened("trixie").path, "bin/busybox"), "rb") as file:
            layer = _layer(file.read())
        with open(f"{path}.{os.getpid()}", "wb") as file:
            file.write(_archive(reference, layer, command))
        os.replace(f"{path}.{os.getpid()}", path)
    return path


def built(tell: Tell) -> None:
    """Build them all."""
    tell("images: busybox and pause")
    for name in _IMAGES:
        archive(name)


def _layer(busybox: bytes) -> bytes:
    entries: list[tuple[str, bytes | str | None]] = [
        (name, None) for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp")
    ]
    entries += [("bin/busybox", busybox), *((f"bin/{applet}", "busybox") for applet in _APPLETS)]
    entries += [("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", b"root:x:0:\n")]
    return _tar(dict(entries))


def _tar(entries: Mapping[str, bytes | str | None]) -> bytes:
    """An archive of files (bytes), symbolic links (text) and directories (None)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries.items():
            item = tarfile.TarInfo(name)
            item.mode = 0o755
            if content is None:
                item.type = tarfile.DIRTYPE
                tar.addfile(item)
            elif isinstance(content, str):
                item.type, item.linkname = tarfile.SYMTYPE, content
                tar.addfile(item)
            else:
                item.size = len(content)
                tar.addfile(item, io.BytesIO(content))
    return target.getvalue()


def _archive(reference: str, layer: bytes, command: Sequence[str]) -> bytes:
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": [*command], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", _json(config)),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0))],
    }
    listed = blob("manifest.v1+json", _json(manifest))
    listed["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed]}
    return _tar({"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index), **blobs})


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
