"""Coverage-guided fuzzing of the readers: ``python tests/fuzz/fuzz_readers.py -runs=20000``.

Needs atheris, mke2fs and mkfs.erofs. Each input is an image of its own; the seeds are small images of both formats
without checksums over everything, so that damage gets past the front door. Any exception that is not one of ours, a
run of more than a few seconds or too much memory is a finding (libFuzzer's ``-timeout`` and ``-rss_limit_mb``).
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile

import atheris  # type: ignore[import-untyped]  # it has no type hints

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

with atheris.instrument_imports(include=["unikeel.boot.readers"]):
    from unikeel.boot.readers import erofs, erofs_compressed, open_reader  # noqa: F401 - imported late otherwise, uninstrumented

from readers_images import make_erofs, make_ext, noise, text, write
from unikeel.errors import UnikeelError

LARGEST = 1 << 20
SEEDS = {
    "ext2": ("-b1024", "-I128", "-N16", "-O", "none,filetype"),
    "ext4": ("-b1024", "-I256", "-N16", "-O", "none,filetype,extent,inline_data,ext_attr,dir_index"),
    "ext4-summed": ("-b1024", "-I256", "-N16", "-O", "none,filetype,extent,metadata_csum,64bit"),
    "erofs": ("-Enosbcrc",),
    "erofs-chunks": ("-Enosbcrc", "--chunksize=4096"),
    "erofs-lz4": ("-Enosbcrc,ztailpacking,fragments", "-zlz4hc", "-C16384"),
    "erofs-legacy": ("-Enosbcrc,legacy-compress", "-zlz4"),
}


def seeds(directory: str) -> None:
    """Write one small image of each kind."""
    with tempfile.TemporaryDirectory() as tree:
        write(f"{tree}/boot/kernel", noise(3000, 1) + text(9000))
        write(f"{tree}/urunc.json", b"{}")
        os.symlink("boot/kernel", f"{tree}/link")
        for name, options in SEEDS.items():
            path = f"{directory}/{name}"
            if name.startswith("erofs"):
                make_erofs(path, tree, *options)
            else:
                make_ext(path, tree, *options, size="64K")
                os.truncate(path, 64 << 10)  # mke2fs leaves off unused blocks at the end
            if not one_image(path):
                raise RuntimeError(f"the seed {name} is refused")


def one_image(path: str) -> bool:
    """Whether a seed is read to its end."""
    with open(path, "rb") as file:
        return one_input(file.read())


def one_input(data: bytes) -> bool:
    """Read everything that the image claims to hold; whether all of it could be read."""
    image = os.memfd_create("image", os.MFD_CLOEXEC)
    copy = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        os.pwrite(image, data, 0)
        with open_reader(image) as reader:
            for path, info in reader.tree():
                if stat.S_ISREG(info.mode):
                    file = reader.open(path, LARGEST)
                    made = sum(len(chunk) for chunk in file.chunks())
                    if made != info.size:
                        raise RuntimeError(f"{path}: {made} bytes instead of {info.size}")
                    os.ftruncate(copy, 0)
                    file.copy_to(copy)
            reader.lookup("/boot/../link")
    except UnikeelError:
        return False
    finally:
        os.close(copy)
        os.close(image)
    return True


def target(data: bytes) -> None:
    """What atheris calls."""
    one_input(data)


def main() -> None:
    """Fuzz with the arguments of libFuzzer; without a corpus directory, from seeds of our own."""
    with tempfile.TemporaryDirectory() as directory:
        seeds(directory)
        arguments = [*sys.argv, "-max_len=131072", "-len_control=0", "-timeout=20", "-rss_limit_mb=1024"]
        if not any(not argument.startswith("-") for argument in sys.argv[1:]):
            arguments.append(directory)
        atheris.Setup(arguments, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
