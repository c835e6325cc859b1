"""Images of the tests' own: OCI archives that say where their configuration is, or leave it out, as no builder of ours would."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_SAMPLES: Final = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "build", "samples"
)
_PREFIX: Final = "com.urunc.unikernel."
KERNEL: Final = "/boot/hello"
#: How to run the tests' guest, as annotations.
GUEST: Final = {f"{_PREFIX}unikernelType": "generic", f"{_PREFIX}hypervisor": "qemu", f"{_PREFIX}binary": KERNEL}
#: The same, with the container's snapshot as its disk.
DISK: Final = {**GUEST, f"{_PREFIX}mountRootfs": "true"}


class Entry(NamedTuple):
    """A file or a link of a layer."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""


Layer = Mapping[str, Entry]


class Spec(NamedTuple):
    """An image: ``name`` is its reference, ``layers`` map paths to what is there."""

    name: str
    layers: tuple[Layer, ...]
    command: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}  # never changed
    annotations: Mapping[str, str] = {}


def urunc_json(values: Mapping[str, str]) -> bytes:
    """The file of this name, which says the same as annotations."""
    return json.dumps({key: base64.b64encode(value.encode()).decode() for key, value in values.items()}).encode()


@functools.cache
def kernel() -> bytes:
    """The unikernel of the sample ``hello``."""
    with tarfile.open(os.path.join(_SAMPLES, "hello.tar")) as archive:
        for member in archive.getmembers():
            blob = archive.extractfile(member)
            data = blob.read() if blob else b""
            if len(data) >= tarfile.BLOCKSIZE and data[257:262] == b"ustar":
                with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                    found = layer.extractfile(KERNEL.lstrip("/"))
                    if found is not None:
                        return found.read()
    raise AssertionError(f"{_SAMPLES}/hello.tar holds no {KERNEL}")


def guest(
    name: str,
    *,
    values: Mapping[str, str] = GUEST,
    said: str = "file",
    boot: bytes | None = None,
    command: Sequence[str] = ("exit=0",),
) -> Spec:
    """An image with the tests' guest. :param said: where it says so: ``file``, ``labels``, ``annotations`` or ``nowhere``. :param boot: its kernel's bytes."""
    files = {KERNEL: Entry(kernel() if boot is None else boot, 0o755), "/etc/motd": Entry(b"a guest's disk\n")}
    if said == "file":
        files["/urunc.json"] = Entry(urunc_json(values))
    # Images with the same configuration would be the same image to the CRI, whatever their manifests say.
    labels = {"lab.test/name": name} | (dict(values) if said == "labels" else {})
    return Spec(name, (files,), tuple(command), labels, values if said == "annotations" else {})


def glutton() -> bytes:
    """A unikernel that writes to each page of its memory from 16 to 480 MiB, and then stands still: an ELF file with a PVH entry, by hand."""
    base, header, program = 0x100000, 52, 32
    code = bytes.fromhex(
        "bf 00000001"  # mov edi, 16 MiB
        "893f"  # next: mov [edi], edi
        "81c7 00100000"  # add edi, 4096
        "81ff 0000001e"  # cmp edi, 480 MiB
        "72f0"  # jb next
        "f4 ebfd"  # halt: hlt; jmp halt
    )
    at = header + 2 * program
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen", base + at)  # 18: XEN_ELFNOTE_PHYS32_ENTRY
    size = at + len(code) + len(note)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    head = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + at, header, 0, 0, header, program, 2, 0, 0, 0)
    load = struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096)
    noted = struct.pack("<8I", 4, at + len(code), 0, 0, len(note), len(note), 4, 4)
    return head + load + noted + code + note


def write(spec: Spec, path: str) -> str:
    """Write an image's archive; its path."""
    blobs: dict[str, bytes] = {}

    def keep(data: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [_packed(layer) for layer in spec.layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": list(spec.command), "Labels": dict(spec.labels), "WorkingDir": "/", "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": keep(json.dumps(config).encode(), "config.v1+json"),
        "layers": [keep(layer, "layer.v1.tar") for layer in layers],
    }
    if spec.annotations:
        manifest["annotations"] = dict(spec.annotations)
    entry = keep(json.dumps(manifest).encode(), "manifest.v1+json") | {
        "annotations": {"io.containerd.image.name": spec.name, "org.opencontainers.image.ref.name": spec.name},
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    files = {f"blobs/sha256/{digest}": Entry(data) for digest, data in blobs.items()}
    files["oci-layout"] = Entry(b'{"imageLayoutVersion":"1.0.0"}')
    files["index.json"] = Entry(json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    with open(path, "wb") as out:
        out.write(_packed(files))
    return path


def _packed(files: Layer) -> bytes:
    """A tar archive of files, with the directories that they need, the same bytes for the same files."""
    out = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in sorted(files.items()):
            name = path.lstrip("/")
            for directory in _parents(name):
                if directory not in made:
                    made.add(directory)
                    archive.addfile(_member(directory, tarfile.DIRTYPE, 0o755))
            if entry.link:
                member = _member(name, tarfile.SYMTYPE, 0o777)
                member.linkname = entry.link
                archive.addfile(member)
            else:
                member = _member(name, tarfile.REGTYPE, entry.mode)
                member.size = len(entry.data)
                archive.addfile(member, io.BytesIO(entry.data))
    return out.getvalue()


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = mode
    return member
