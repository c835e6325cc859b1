"""``make matrix``: boot every pair of a guest and a monitor that this machine can, with each kind of root, with network and volumes, and print the table of docs/matrix.md.

The images are of urunc's format and built here. A row is ``booted`` when its guest has printed what it should have and has ended as it was told to; where something is missing
for that, the row says what: ``plan compared`` where tests compare its whole plan, ``not possible`` where nothing like it can be. ``UNIKEEL_SOLO5`` and ``UNIKEEL_UNIKRAFT`` name built sources as for the tests; ``UNIKEEL_MATRIX_KERNEL`` and
``UNIKEEL_MATRIX_MODULES`` name another kernel for Linux guests, such as one with 9p. Nothing may fail for any other reason: then the command fails.

Disks beyond the root's, and copies of small files, have rows of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import installed_kernel
import unikeel
from engine_leftovers import wait_keeper_gone
from engine_stages import sample
from file_teller import compile_teller
from ordinary_images import docker_archive
from samples import compiling
from unikeel.errors import Unavailable, UnikeelError
from unikeel.guests import guest
from unikeel.model.rootfs import Rootfs
from unikeel.model.volumes import Volume
from unikeel.monitors import monitor
from unikeel.monitors.pairs import Proof, pairs
from unikeel.values import NamedTuple

PATIENCE: Final = 120
BOOTED: Final = "booted"
COMPARED: Final = "plan compared"
IMPOSSIBLE: Final = "not possible"
_SOLO5: Final = os.environ.get("UNIKEEL_SOLO5", "")
_UNIKRAFT: Final = os.environ.get("UNIKEEL_UNIKRAFT", "")
#: Roots, as the table has them: the kinds of the decision, and of a shared one the file system.
_ROOTS: Final = ("snapshot", "image-disk", "initrd", "virtiofs", "9p", "none")


class Row(NamedTuple):
    """One row of the table."""

    monitor: str
    guest: str
    root: str
    result: str
    network: str
    volumes: str
    remark: str


class Case(NamedTuple):
    """How a row is booted: the image, the options, what the guest must print and how it must end."""

    image: str
    options: unikeel.Options
    printed: tuple[str, ...]
    code: int = 0
    #: What of volumes it has, for the table.
    volumes: str = "none"


class Place(NamedTuple):
    """A directory with a state root and the files that images are made of."""

    directory: str
    engine: unikeel.Engine


_DESCRIPTION: Final = """\
name = "{name}"
type = "{guest}"
monitor = "{monitor}"
kernel = "{kernel}"
{more}
"""


def build(place: Place, name: str, kind: str, on: str, files: Mapping[str, str], kernel: str, more: str) -> str:
    """An image whose root has these files (name → host path)."""
    context = os.path.join(place.directory, f"context-{name}")
    for directory in ("dev", "proc", "sys", "etc"):
        os.makedirs(os.path.join(context, "tree", directory))
    for file, path in files.items():
        target = os.path.join(context, "tree", file)
        shutil.copyfile(path, target)
        os.chmod(target, 0o755)
    with open(os.path.join(context, "image.toml"), "w", encoding="utf-8") as text:
        text.write(_DESCRIPTION.format(name=name, guest=kind, monitor=on, kernel=kernel, more=more))
    place.engine.build(context)
    return name


def disk_of(place: Place, name: str, files: Mapping[str, str]) -> str:
    """A raw disk with an ext4 that has these files."""
    tree, disk = os.path.join(place.directory, f"tree-{name}"), os.path.join(place.directory, f"{name}.img")
    for directory in ("dev", "proc", "sys", "etc"):
        os.makedirs(os.path.join(tree, directory))
    for file, path in files.items():
        os.makedirs(os.path.dirname(os.path.join(tree, file)), exist_ok=True)
        shutil.copy(path, os.path.join(tree, file))
    with open(disk, "wb") as file_:
        file_.truncate(32 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-d", tree, disk], check=True, timeout=PATIENCE)
    return disk


# -- the cases -----------------------------------------------------------------------------------------------------------


def linux_on_qemu(place: Place) -> dict[str, Callable[[], Case]]:
    """The distribution's kernel with our own init; the image's program reads and writes its volumes."""
    teller = compile_teller(os.path.join(place.directory, "teller"))
    archive = docker_archive(os.path.join(place.directory, "files.tar"), teller, "")
    data = os.path.join(place.directory, "data")
    os.makedirs(data, exist_ok=True)
    for name in ("one", "../four"):
        with open(os.path.join(data, name), "w", encoding="utf-8") as file:
            file.write("from the host")
    volumes = (Volume(data, "/data"), Volume(os.path.join(place.directory, "four"), "/etc/four", read_only=True))
    words = ("r:/data/one", "w:/data/new", "r:/etc/four", "w:/etc/four", "r:/etc/resolv.conf")
    printed = (
        "r:/data/one: from the host",
        "w:/data/new: ",
        "r:/etc/four: from the host",
        "w:/etc/four: Read-only file system",
        "r:/etc/resolv.conf: nameserver 10.0.2.3",
    )

    def shared(root: str) -> Callable[[], Case]:
        annotations = (("org.unikeel.rootfs", root),) if root else ()
        options = unikeel.Options(
            guest="linux", kernel="default", network="user", args=words, volumes=volumes, annotations=annotations
        )
        return lambda: Case(f"docker-archive:{archive}", options, printed, volumes="directory and file, shared")

    def inside() -> Case:
        more = 'block = "/disk.img"\nblock_mount = "/"\nentrypoint = ["/bin/teller"]\n[annotations]\n"org.unikeel.kernel" = "default"'
        name = build(
            place,
            "inside-qemu",
            "linux",
            "qemu",
            {"disk.img": disk_of(place, "qemu", {"bin/teller": teller})},
            "/disk.img",
            more,
        )
        return Case(
            name,
            unikeel.Options(network="user", args=words, volumes=volumes),
            printed,
            volumes="directory and file, shared",
        )

    def initrd() -> Case:
        place.engine.load(sample("initrd"), name="initrd")
        copied = (Volume(os.path.join(place.directory, "four"), "/etc/four"),)
        options = unikeel.Options(network="user", args=("two words", "exit=5"), volumes=copied)
        return Case(
            "initrd", options, ("hello from an initrd", "argument: two words"), 5, "a file, as a copy (not read back)"
        )

    return {
        "snapshot": shared(""),
        "virtiofs": shared("virtiofs"),
        "9p": shared("9p"),
        "image-disk": inside,
        "initrd": initrd,
    }


class Beside(NamedTuple):
    """A row beside that of its kind of root: what a guest has beyond it."""

    root: str
    make: Callable[[], Case]


def beside(place: Place, on: str, kind: str) -> list[Beside]:
    """Further disks, the image's own among them, and copies, with guests of our own init."""
    if kind != "linux" or on not in ("qemu", "uml"):
        return []
    teller = os.path.join(place.directory, "teller")
    if not os.path.exists(teller):
        compile_teller(teller)

    def booted(name: str, words: tuple[str, ...], printed: tuple[str, ...], told: str, **more: object) -> Case:
        own = {} if name == "none" else {"data.img": _read(disk_of(place, f"{on}-{name}", {"what": _said(place)}))}
        archive = docker_archive(os.path.join(place.directory, f"{on}-{name}.tar"), teller, "", own)
        options = unikeel.Options(guest="linux", kernel="default", monitor=on, network="none", args=words, **more)  # type: ignore[arg-type]  # its own fields
        return Case(f"docker-archive:{archive}", options, printed, volumes=told)

    def disks() -> Case:
        one, two = (disk_of(place, f"{on}-{name}", {"what": _said(place)}) for name in ("one", "two"))
        volumes = (Volume(one, "/one", disk=True), Volume(two, "/one/two", read_only=True, disk=True))
        words = ("r:/one/what", "w:/one/new", "r:/one/two/what", "w:/one/two/new")
        printed = (
            "r:/one/what: said",
            "w:/one/new: ",
            "r:/one/two/what: said",
            "w:/one/two/new: Read-only file system",
        )
        return booted("none", words, printed, "two disks, one for reading only", volumes=volumes)

    def own() -> Case:
        places = (("com.urunc.unikernel.block", "/data.img"), ("com.urunc.unikernel.blkMntPoint", "/srv/data"))
        words = ("r:/srv/data/what", "w:/srv/data/new")
        return booted(
            "own",
            words,
            ("r:/srv/data/what: said", "w:/srv/data/new: "),
            "the image's own disk at /srv/data",
            annotations=places,
        )

    def copies() -> Case:
        directory = os.path.join(place.directory, "secrets")
        os.makedirs(directory, exist_ok=True)
        shutil.copy(_said(place), os.path.join(directory, "token"))
        volumes = (Volume(directory, "/run/secrets", read_only=True), Volume(_said(place), "/etc/said", read_only=True))
        words = ("r:/run/secrets/token", "r:/etc/said")
        printed = ("r:/run/secrets/token: said", "r:/etc/said: said")
        return booted("none", words, printed, "directory and file, as copies", volumes=volumes)

    found = [Beside("snapshot", disks), Beside("snapshot", own)]
    # Where something can be shared, nothing is copied.
    return found if on == "qemu" else [*found, Beside("snapshot", copies)]


def _said(place: Place) -> str:
    path = os.path.join(place.directory, "said")
    with open(path, "w", encoding="utf-8") as file:
        file.write("said")
    return path


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def linux_on_uml(place: Place) -> dict[str, Callable[[], Case]]:
    """The kernel of user-mode Linux's package."""
    init = os.path.join(place.directory, "init")
    compiling.program(("initrd/init.c", "guest-init/guest.c"), init)
    printed = ("hello from an initrd", "argument: two words")
    options = unikeel.Options(memory=64 << 20, args=("two words",), monitor="uml")
    disk = 'entrypoint = ["/init"]\n'

    def snapshot() -> Case:
        files = {"init": init, "vmlinuz": "/dev/null"}
        return Case(
            build(place, "snapshot-uml", "linux", "uml", files, "/vmlinuz", "mount_rootfs = true\n" + disk),
            options,
            printed,
        )

    def inside() -> Case:
        files = {"disk.img": disk_of(place, "uml", {"init": init}), "vmlinuz": "/dev/null"}
        more = 'block = "/disk.img"\nblock_mount = "/"\n' + disk
        return Case(build(place, "inside-uml", "linux", "uml", files, "/vmlinuz", more), options, printed)

    def initrd() -> Case:
        place.engine.load(sample("initrd"), name="initrd")
        with open(os.path.join(place.directory, "copied"), "w", encoding="utf-8") as file:
            file.write("from the host")
        volumes = (Volume(os.path.join(place.directory, "copied"), "/etc/four"),)
        return Case("initrd", options._replace(volumes=volumes), printed, volumes="a file, as a copy (not read back)")

    return {"snapshot": snapshot, "image-disk": inside, "initrd": initrd}


def generic_on_qemu(place: Place) -> dict[str, Callable[[], Case]]:
    """The sample ``hello``, which reads its disk itself."""

    def hello() -> Case:
        place.engine.load(sample("hello"), name="hello")
        return Case("hello", unikeel.Options(args=("exit=3",)), ("hello from a unikernel",), 3)

    return {"snapshot": hello}


def unikernels(place: Place, on: str) -> dict[str, Callable[[], Case]]:
    """Unikernels of Solo5's own tests, where they are."""
    suffix = "virtio" if on == "qemu" else on

    def case(test: str, more: str, args: tuple[str, ...]) -> Callable[[], Case]:
        file = f"{test}.{suffix}"

        def make() -> Case:
            path = f"{_SOLO5}/tests/{test}/{file}"
            name = build(place, f"{test.replace('_', '-')}-{suffix}", "mirage", on, {file: path}, f"/{file}", more)
            return Case(name, unikeel.Options(network="none", memory=64 << 20, args=args), ("SUCCESS",))

        return make

    if not _SOLO5:
        return {}
    found = {"none": case("test_hello", "", ("Hello_Solo5",))}
    return found if on == "qemu" else {**found, "snapshot": case("test_blk", "mount_rootfs = true", ())}


def unikraft(place: Place) -> dict[str, Callable[[], Case]]:
    """Unikraft's helloworld, where it is."""

    def hello() -> Case:
        name = build(place, "unikraft", "unikraft", "qemu", {"kernel": _UNIKRAFT}, "/kernel", "")
        options = unikeel.Options(network="none", memory=64 << 20, args=("some", "words"))
        return Case(name, options, ('"some" "words"',))

    return {"none": hello} if _UNIKRAFT else {}


def cases(place: Place, on: str, kind: str) -> dict[str, Callable[[], Case]]:
    """What can be booted of a pair, by its kind of root."""
    makers: dict[tuple[str, str], Callable[[Place], dict[str, Callable[[], Case]]]] = {
        ("qemu", "linux"): linux_on_qemu,
        ("uml", "linux"): linux_on_uml,
        ("qemu", "generic"): generic_on_qemu,
        ("qemu", "unikraft"): unikraft,
        ("qemu", "mirage"): lambda where: unikernels(where, "qemu"),
        ("spt", "mirage"): lambda where: unikernels(where, "spt"),
        ("hvt", "mirage"): lambda where: unikernels(where, "hvt"),
    }
    maker = makers.get((on, kind))
    return maker(place) if maker is not None else {}


# -- the table -----------------------------------------------------------------------------------------------------------


def roots(on: str, kind: str) -> Iterator[tuple[str, str]]:
    """The kinds of root of a pair, and why one is none of them."""
    traits, found = monitor(on).traits, guest(kind)
    for root in _ROOTS:
        problem = ""
        if root in ("snapshot", "image-disk") and not found.block.supported:
            problem = "the guest has no block device"
        elif root == "initrd" and not found.initrd:
            problem = "the guest has no initrd"
        elif root in ("virtiofs", "9p") and root not in found.shared:
            problem = "the guest does not mount it"
        elif root in ("virtiofs", "9p") and root not in traits.shared:
            problem = "the monitor does not offer it"
        elif root == "none" and kind == "linux":
            problem = "Linux has a root"
        yield root, problem


def rows(place: Place) -> Iterator[Row]:
    """The whole table, as it is found out."""
    for pair in pairs():
        if pair.proof is Proof.NOT_OFFERED:
            yield Row(pair.monitor, pair.guest, "any", IMPOSSIBLE, "none", "none", pair.remark)
            continue
        missing = absent(place, pair.monitor)
        able = {} if missing else cases(place, pair.monitor, pair.guest)
        more = [] if missing else beside(place, pair.monitor, pair.guest)
        for root, problem in roots(pair.monitor, pair.guest):
            if problem:
                yield Row(pair.monitor, pair.guest, root, IMPOSSIBLE, "none", "none", problem)
            elif root in able:
                yield boot(place, pair.monitor, pair.guest, root, able[root]())
                for found in more:
                    if found.root == root:
                        yield boot(place, pair.monitor, pair.guest, root, found.make())
            else:
                named = "not booted here: its files are not named" if pair.proof is Proof.TRIED else pair.remark
                parsed = [text for text in pair.remark.split("; ") if text.startswith("the monitor itself")]
                why = "; ".join((missing, *parsed)) if missing else ("no image for it is built" if able else named)
                yield Row(pair.monitor, pair.guest, root, COMPARED, "none", "none", why)


def absent(place: Place, name: str) -> str:
    """Why a monitor cannot run here; empty: it can."""
    services = place.engine.services
    try:
        services.accelerator(name, services.facts(name), "")
    except Unavailable as error:
        return error.message
    return ""


def boot(place: Place, on: str, kind: str, root: str, case: Case) -> Row:
    """Boot one, and see that it did what it should have."""
    container = place.engine.create(case.image, case.options)
    try:
        settings = container.record.settings
        is_kind = {"virtiofs": Rootfs.SHARED, "9p": Rootfs.SHARED}.get(root)
        assert settings["rootfs"] == (is_kind.value if is_kind else root), settings["rootfs"]
        try:
            container.start(seconds=PATIENCE)
        except Unavailable as error:
            lacks = error.message.rpartition(" have no ")[2]
            return Row(on, kind, root, COMPARED, "none", "none", f"the kernel has no {lacks}")
        code = container.wait(PATIENCE)
        text = b"".join(container.logs()).decode(errors="replace")
        lines = {line.strip() for line in text.splitlines()}
        lacking = [line for line in case.printed if line.strip() not in lines and line not in text]
        if code != case.code or lacking:
            raise UnikeelError(f"{on}, {kind}, {root}: exit {code}, not printed: {lacking}; printed: {text[-2000:]}")
        return Row(on, kind, root, BOOTED, str(settings["network"]), case.volumes, "")
    finally:
        container.remove(force=True)


_HEAD: Final = """\
# What was booted

<!-- Printed by `make matrix`. -->

Every pair of a monitor and a guest with every kind of root. `booted`: on a machine without usable hardware virtualization, from images in urunc's format that `make matrix` builds, confined, and the guest printed and ended as it
should. `plan compared`: what is missing for that is in the last column, and unit tests compare the whole plan with expectations that name their sources. `not possible`: there is no such combination.
What each can in general is in [monitors.md](monitors.md).

Plans that could not be booted were put to two monitors' own parsers, built from their sources: Firecracker's and Cloud Hypervisor's, for Linux with an initrd, a root disk and two further disks. Both took them, up to the kernel, which
they could not load without KVM, and refused them with one word changed (`tests/root/test_real_parsers.py`, with `UNIKEEL_FIRECRACKER` and `UNIKEEL_CLOUD_HYPERVISOR`). No other plan that is only compared was put to its monitor.

Linux guests on QEMU ran {kernel}. Debian's cloud kernel has no 9p.

| monitor | guest | root | result | network | volumes | remark |
|---|---|---|---|---|---|---|
"""


def configuration() -> str:
    """The configuration file: which kernel boots Linux guests on QEMU, and where Solo5's tender is."""
    image, modules = os.environ.get("UNIKEEL_MATRIX_KERNEL", ""), os.environ.get("UNIKEEL_MATRIX_MODULES", "")
    tender = f'[monitor]\nspt_path = "{_SOLO5}/tenders/spt/solo5-spt"\n' if _SOLO5 else ""
    kernel = f'[kernel]\nimage = "{image}"\nmodules = "{modules}"\n' if image else installed_kernel.configuration()
    return kernel + tender


def main() -> int:
    """Print the table, row by row; 0 if nothing failed."""
    kernel = os.environ.get("UNIKEEL_MATRIX_KERNEL", "")
    sys.stdout.write(_HEAD.format(kernel=os.path.basename(kernel) or "Debian's cloud kernel"))
    with tempfile.TemporaryDirectory(prefix="uk-matrix-") as directory:
        config = os.path.join(directory, "config.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[keeper]\nidle = 1\n" + configuration())
        with unikeel.Engine(os.path.join(directory, "root"), config=config) as engine:
            for row in rows(Place(directory, engine)):
                cells = (f"`{row.monitor}`", f"`{row.guest}`", row.root, *row[3:])
                sys.stdout.write(f"| {' | '.join(cells)} |\n")
                sys.stdout.flush()
        wait_keeper_gone(os.path.join(directory, "root"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
