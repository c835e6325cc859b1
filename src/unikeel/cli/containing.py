"""What ``run`` and ``create`` share: the options of a new container."""

from __future__ import annotations

from unikeel.cli.options import FILES, IMAGES, Argument, Option, Parsed
from unikeel.engine.settings import Options
from unikeel.lean import Final
from unikeel.model import volumes
from unikeel.network import ports

BOOT_FILES: Final = ("auto", "cache", "shared-view", "view", "copy")

OPTIONS: Final = (
    Option(("--name",), "its name; by default its id", "NAME"),
    Option(("--rm",), "remove it when it has ended"),
    Option(("-p", "--publish"), "publish a port of the guest: [ADDRESS:]HOST:GUEST[/udp]", "PORTS", many=True),
    Option(("-e", "--env"), "set an environment variable of the guest: NAME=VALUE", "ENV", many=True),
    Option(
        ("-v", "--volume"),
        "give the guest a directory, a file or a disk of this host: HOST:GUEST[:ro], HOST:GUEST:disk[,ro]",
        "VOLUME",
        many=True,
        complete=FILES,
    ),
    Option(("-m", "--memory"), "the guest's memory, such as 512MiB or 2g; rounded up to whole MiB", "SIZE"),
    Option(("--cpus",), "the guest's processors", "N"),
    Option(("--guest",), "run an image that does not say how as this kind of guest; with --kernel", "TYPE"),
    Option(
        ("--kernel",),
        "with --guest: the kernel, default (this host's, with unikeel's own init) or a path in the image",
        "KERNEL",
    ),
    Option(("--monitor",), "the monitor, instead of the image's", "NAME"),
    Option(("--machine",), "the machine that QEMU emulates", "NAME", choices=("microvm", "q35")),
    Option(("--accel",), "hardware virtualization or emulation", "NAME", choices=("auto", "kvm", "tcg")),
    Option(
        ("--net",),
        "the network: user (mode), none, or one of CNI's: the file of its configuration, or its name in network.cni_networks",
        "NETWORK",
        choices=("user", "none"),
        free=True,
    ),
    Option(("--annotation",), "override an annotation of the image: KEY=VALUE", "ANNOTATION", many=True),
    Option(("--boot-files",), "how the kernel and the initrd are got from the image", "HOW", choices=BOOT_FILES),
    Option(("--no-sandbox",), "run the monitor without confinement, as root: for a trial only"),
)
ARGUMENTS: Final = (
    Argument(
        "IMAGE",
        "name or digest of an image of the store; or an archive to load first: docker-archive:FILE, oci-archive:FILE, oci:DIRECTORY",
        complete=IMAGES,
    ),
    Argument("ARG", "arguments of the guest: all that follows the image, also words that begin with a dash", 0, None),
)


def options(parsed: Parsed) -> Options:
    """The engine's options. :raise InvalidArgument: one is malformed."""
    return Options(
        name=parsed.text("name"),
        args=tuple(parsed.operands[1:]),
        env=parsed.texts("env"),
        memory=parsed.size("memory"),
        cpus=parsed.number("cpus"),
        guest=parsed.text("guest"),
        kernel=parsed.text("kernel"),
        monitor=parsed.text("monitor"),
        boot_files=parsed.text("boot-files"),
        ports=tuple(ports.parse(text) for text in parsed.texts("publish")),
        network=parsed.text("net"),
        machine=parsed.text("machine"),
        accel=parsed.text("accel"),
        sandbox=not parsed.flag("no-sandbox"),
        auto_remove=parsed.flag("rm"),
        annotations=parsed.pairs("annotation"),
        volumes=tuple(volumes.parse(text) for text in parsed.texts("volume")),
    )
