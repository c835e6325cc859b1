"""``unikeel image build``: pack a directory, or what the options name, into an image."""

from __future__ import annotations

from unikeel.cli import progress
from unikeel.cli.options import DIRECTORIES, FILES, Argument, Command, Option, Parsed
from unikeel.cli.output import line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.images.description import Overrides
    from unikeel.images.manifests import Image
    from unikeel.images.progress import Progress

COMMAND = Command(
    "image build",
    "pack a kernel, an initrd, a root file system into an image, reproducibly",
    options=(
        Option(("--kernel",), "the kernel or unikernel, a file of this host", "FILE", complete=FILES),
        Option(("--initrd",), "the initrd, a file of this host", "FILE", complete=FILES),
        Option(("--rootfs",), "the root file system: a directory tree, or a disk image", "PATH", complete=FILES),
        Option(("--type",), "the guest's kind, such as linux or generic", "KIND"),
        Option(("--monitor",), "the monitor", "NAME"),
        Option(("--version",), "the unikernel's version, as its annotation says it", "TEXT"),
        Option(("--cmdline",), "the guest's command line", "TEXT"),
        Option(("--entrypoint",), "a word of the entry point", "WORD", many=True),
        Option(("--cmd",), "a word of the command that ARGs of `run` replace", "WORD", many=True),
        Option(("-e", "--env"), "an environment variable: NAME=VALUE", "ENV", many=True),
        Option(("--workdir",), "the guest's working directory", "DIR"),
        Option(("--user",), "the guest's user", "USER"),
        Option(("--arch",), "the architecture", "NAME", choices=("amd64", "arm64", "riscv64")),
        Option(("--compression",), "of the layers", "NAME", choices=("none", "gzip", "zstd")),
        Option(("--mount-rootfs",), "set the annotation mountRootfs"),
        Option(("--annotation",), "one more annotation: KEY=VALUE", "ANNOTATION", many=True),
        Option(("--label",), "one more label: KEY=VALUE", "LABEL", many=True),
        Option(("--name",), "the image's name", "NAME"),
        Option(("-o", "--output"), "write it only there: FILE.tar or an OCI layout directory", "PATH", complete=FILES),
    ),
    arguments=(Argument("DIRECTORY", "holds image.toml and what it names; options win over it", 0, 1, DIRECTORIES),),
    examples=(
        ("unikeel image build samples/web", "by its image.toml, into the store"),
        ("unikeel image build --kernel app.elf --type generic --name app -o app.tar", "without a description"),
    ),
    details="The same input gives the same digest. Everything is dated by SOURCE_DATE_EPOCH, or 1970. Prints name and digest.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Build, and print name and digest."""
    with progress.shown() as shown:
        image = _build(parsed, session, shown)
    line(f"{image.name} {image.digest}".strip())
    return 0


def _build(parsed: Parsed, session: Session, shown: Progress | None) -> Image:
    directory = parsed.operands[0] if parsed.operands else None
    name, output, flags = parsed.maybe("name"), parsed.maybe("output"), overrides(parsed)
    if output is None:
        with session.engine() as engine:
            return engine.build(directory, flags, name=name, progress=shown)
    from unikeel.images.build import build

    return build(directory, output=output, name=name, overrides=flags, progress=shown)


def overrides(parsed: Parsed) -> Overrides:
    """The options that describe the image; those not given leave the description as it is."""
    from unikeel.images.description import Overrides

    return Overrides(
        kernel=parsed.maybe("kernel"),
        initrd=parsed.maybe("initrd"),
        rootfs=parsed.maybe("rootfs"),
        type=parsed.maybe("type"),
        monitor=parsed.maybe("monitor"),
        version=parsed.maybe("version"),
        cmdline=parsed.maybe("cmdline"),
        entrypoint=parsed.texts("entrypoint") or None,
        cmd=parsed.texts("cmd") or None,
        env=parsed.texts("env") or None,
        workdir=parsed.maybe("workdir"),
        user=parsed.maybe("user"),
        architecture=parsed.maybe("arch"),
        compression=parsed.maybe("compression"),
        mount_rootfs=True if parsed.flag("mount-rootfs") else None,
        annotations=dict(parsed.pairs("annotation")),
        labels=dict(parsed.pairs("label")),
    )
