"""Bytes that look random and are the same every time."""

from __future__ import annotations

import hashlib
import os
from typing import Final

MEBIBYTE: Final = 1 << 20


def block(seed: str, size: int) -> bytes:
    """So many bytes: SHAKE128 of the seed (FIPS 202), which no compressor makes smaller and no two seeds share."""
    return hashlib.shake_128(seed.encode()).digest(size)


def write(path: str, seed: str, mebibytes: int) -> None:
    """A file of so many MiB, mode 0644, made 64 MiB at a time."""
    with open(path, "wb") as file:
        file.writelines(
            block(f"{seed} {start}", min(64, mebibytes - start) * MEBIBYTE) for start in range(0, mebibytes, 64)
        )
    os.chmod(path, 0o644)
