"""Ordinary container images for tests: nothing in them says how to run them as a unikernel."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from types import MappingProxyType


def docker_archive(
    path: str, program: str, user: str = "app:extra", more: Mapping[str, bytes] = MappingProxyType({})
) -> str:
    """An image of one layer with this program at /bin/teller, which runs as a user with a name, and with ``more`` files (name without a slash before it, content)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in ("bin", "etc", "dev", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        with open(program, "rb") as file:
            add(archive, "bin/teller", file.read(), 0o755)
        add(archive, "etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
        add(archive, "etc/group", b"root:x:0:\nextra:x:77:\n")
        for name, data in more.items():
            add(archive, name, data)
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["teller"],
            "Env": ["PATH=/sbin:/bin", "A=1"],
            "User": user,
            "WorkingDir": "/work/sub",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    text = json.dumps(configuration).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["ordinary:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        add(archive, name, text)
        add(archive, "layer.tar", layer.getvalue())
        add(archive, "manifest.json", json.dumps(manifest).encode())
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
