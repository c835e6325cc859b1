"""Fetching by skopeo, the one tool for registries and other people's formats."""

from __future__ import annotations

import os
import selectors
import subprocess
from dataclasses import dataclass

from unikeel.errors import InvalidArgument, ResourceExhausted, Unavailable
from unikeel.images import references
from unikeel.images.progress import Progress
from unikeel.lean import Final

#: skopeo's transports that we pass on; anything else before a colon belongs to a name.
TRANSPORTS: Final = ("docker", "oci", "oci-archive", "docker-archive", "dir", "containers-storage", "docker-daemon")
_POLICIES: Final = ("/etc/containers/policy.json", "~/.config/containers/policy.json")
_TICK: Final = 0.2
_MAX_REFERENCE: Final = 4096
_KEPT: Final = 8 << 10


@dataclass(frozen=True)
class Source:
    """A reference as skopeo takes it, and the image name in it ("" if it has none)."""

    reference: str
    name: str


def parse(reference: str) -> Source:
    """Understand a reference.

    :raise InvalidArgument: empty, too long, with control characters, or a bare name that cannot be one.
    """
    if not reference or len(reference) > _MAX_REFERENCE or not reference.isprintable() or reference.startswith("-"):
        raise InvalidArgument(f"{reference[:100]!r} is no reference to an image")
    transport, colon, rest = reference.partition(":")
    if not colon or transport not in TRANSPORTS:
        references.canonical(reference)
        return Source(f"docker://{reference}", reference)
    if not rest.strip("/"):
        raise InvalidArgument(f"{reference!r} names a transport, but no image")
    return Source(reference, _name_in(transport, rest))


def _name_in(transport: str, rest: str) -> str:
    """The name that a reference carries, if it carries a usable one."""
    name = {
        "docker": rest.removeprefix("//"),
        "dir": os.path.basename(rest.rstrip("/")),
        "containers-storage": rest.rpartition("]")[2],
        "docker-daemon": rest,
    }.get(transport)
    if name is None:
        path, _, name = rest.partition(":")
        name = name or os.path.basename(path.rstrip("/")).removesuffix(".tar")
    return name if references.is_name(name) else ""


def fetch(source: Source, directory: str, progress: Progress) -> str:
    """Have skopeo copy an image into ``directory``; returns where it lies then (skopeo's ``dir:`` form, which keeps
    the manifest as it is, so that the digest remains that of the registry).

    :raise Unavailable: there is no skopeo, or it failed. :raise ResourceExhausted: it found no space.
    """
    target = os.path.join(directory, "pulled")
    argv = ["skopeo", *_policy(), "copy", "--", source.reference, f"dir:{target}"]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": directory},
        )
    except OSError as error:
        raise Unavailable(f"skopeo cannot be run: {error.strerror}", "install skopeo") from error
    try:
        last = _follow(process, target, f"pulling {source.reference}", progress)
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if status != 0:
        _raise(source.reference, last, status)
    return target


def _policy() -> list[str]:
    """Where the host has no policy for signatures at all, skopeo would refuse to work; a policy that is there binds."""
    found = any(os.path.exists(os.path.expanduser(path)) for path in _POLICIES)
    return [] if found else ["--insecure-policy"]


def _follow(process: subprocess.Popen[bytes], target: str, what: str, progress: Progress) -> str:
    """Tell how much is there until skopeo has said all; returns its last line."""
    tail = b""
    if process.stdout is None:
        return ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(_TICK)
            if ready:
                piece = os.read(process.stdout.fileno(), _KEPT)
                if not piece:
                    break
                tail = (tail + piece)[-_KEPT:]
            progress(what, _size(target), 0)
    lines = [line.strip() for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _size(directory: str) -> int:
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except FileNotFoundError:
        return 0


def _raise(reference: str, line: str, status: int) -> None:
    """skopeo's last line has the form ``time="…" level=fatal msg="…"``."""
    _, _, message = line.partition(" msg=")
    text = (message or line).strip().removeprefix('"').removesuffix('"').replace('\\"', '"').rstrip(".")
    if "no space left on device" in text:
        raise ResourceExhausted(f"{reference} cannot be pulled: {text}", "free space on the disk")
    raise Unavailable(
        f"{reference} cannot be pulled: {text or f'skopeo ended with status {status}'}",
        "check the reference and the network",
    )
