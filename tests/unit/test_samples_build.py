"""The builder of the sample images: its parsers and writers, and what makes two builds the same."""

from __future__ import annotations

import lzma
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from samples import ballast, build, compiling, debian, images, initramfs, kmod
from samples.trees import Tree
from unikeel.images import description


def module(*depends: str) -> bytes:
    """An ELF file with nothing but a .modinfo section."""
    info = b"license=GPL\0depends=" + ",".join(depends).encode() + b"\0vermagic=6.1\0"
    names = b"\0.modinfo\0.shstrtab\0"
    sections = [(0, 0, 0), (1, 64, len(info)), (10, 64 + len(info), len(names))]
    table = b"".join(struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, at, size, 0, 0, 1, 0) for name, at, size in sections)
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q", 64 + len(info) + len(names))
    return head.ljust(58, b"\0") + struct.pack("<HHH", 64, 3, 2) + info + names + table


def newc(archive: bytes) -> Iterator[tuple[str, int, int, bytes]]:
    """Name, inode number, mode and data of each entry of a cpio archive."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + numbers[11]
        name = archive[at + 110 : name_end - 1].decode()
        data_at = (name_end + 3) & ~3
        if name == "TRAILER!!!":
            return
        yield name, numbers[0], numbers[1], archive[data_at : data_at + numbers[6]]
        at = (data_at + numbers[6] + 3) & ~3


def test_an_initrd_holds_its_files_and_the_directories_above_them_in_order() -> None:
    archive = initramfs.archive({"/modules/list": initramfs.File(b"a\n"), "/init": initramfs.File(b"\x7fELF!", 0o755)})
    assert list(newc(archive)) == [
        ("init", 1, stat.S_IFREG | 0o755, b"\x7fELF!"),
        ("modules", 2, stat.S_IFDIR | 0o755, b""),
        ("modules/list", 3, stat.S_IFREG | 0o644, b"a\n"),
    ]


def test_modules_are_loaded_after_what_they_need_and_built_in_ones_are_not() -> None:
    modules = {
        "virtio_net": module("virtio", "net_failover"),
        "net_failover": lzma.compress(module("failover")),
        "failover": module(),
        "virtio": module(),
        "unused": b"not even read",
    }
    assert kmod.load_order(["virtio", "virtio_net", "ext4"], modules, ["ext4"]) == [
        "virtio",
        "failover",
        "net_failover",
        "virtio_net",
    ]


def test_a_module_that_is_nowhere_is_named_with_who_needs_it() -> None:
    with pytest.raises(kmod.ModuleMissing, match="no module virtio, which virtio_blk needs"):
        kmod.load_order(["virtio_blk"], {"virtio_blk": module("virtio")}, [])


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF\x01\x01" + bytes(60), module("a")[:90], b"\x7fELF\x02\x01" + bytes(60)]
)
def test_what_is_no_module_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF|section"):
        kmod.depends(data)


def test_module_names_are_those_that_the_kernel_uses() -> None:
    assert kmod.name_of("lib/modules/6.1/kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"
    assert kmod.depends(module("crc32c-intel", "b")) == ("crc32c_intel", "b")


def test_the_loader_takes_the_drivers_that_this_kernel_has() -> None:
    drivers = {name: module() for name in ("virtio_mmio", "virtio_blk", "virtio_net", "evdev", "button")}
    kernel = images.Kernel(b"kernel", {**drivers, "virtio_pci": module("virtio"), "virtio": module()}, ("ext4",))
    files = {name: data for name, _, _, data in newc(images.loader_initrd(kernel, b"loader"))}
    assert files["init"] == b"loader"
    assert files["modules/list"].split() == [
        b"virtio", b"virtio_pci", b"virtio_mmio", b"virtio_blk", b"virtio_net", b"evdev", b"button",
    ]  # fmt: skip


def test_control_fields_and_dependencies_are_read() -> None:
    stanza = (
        "Package: nginx\nVersion: 1.22\nDepends: libc6 (>= 2.34), libssl3 | libssl1.1, libc6:any\n"
        "Description: web server\n A: continued\n\nPackage: nginx\nVersion: 1.0\n"
    )
    found = debian.fields(stanza)
    assert (found["Package"], found["Version"]) == ("nginx", "1.22")
    assert " A" not in found
    assert debian.dependencies(found["Depends"]) == ["libc6", "libssl3"]
    assert debian.dependencies("") == []


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("./lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./usr/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./boot/vmlinuz-6.1", "boot/vmlinuz-6.1"),
        ("./library", "library"),
        ("./", ""),
    ],
)
def test_packages_of_both_layouts_of_usr_are_read_alike(path: str, normal: str) -> None:
    assert debian.normal(path) == normal


def test_the_cache_is_where_the_user_says() -> None:
    home = {"HOME": "/h", "UNIKEEL_CACHE": "", "XDG_CACHE_HOME": ""}
    assert debian.cache_directory(home) == "/h/.cache/unikeel/packages"
    assert debian.cache_directory({**home, "XDG_CACHE_HOME": "/x"}) == "/x/unikeel/packages"
    assert debian.cache_directory({**home, "XDG_CACHE_HOME": "/x", "UNIKEEL_CACHE": "/u"}) == "/u/packages"


def test_chosen_packages_are_remembered_and_not_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stanzas = {
        "web": "Package: web\nVersion: 1\nSHA256: aa\nDepends: liba (>= 1), perl",
        "liba": "Package: liba\nVersion: 1:2\nSHA256: bb\nDepends: libb | libc",
        "libb": "Package: libb\nVersion: 3\nSHA256: cc",
    }
    asked: list[str] = []

    def run(command: list[str], _: str) -> str:
        asked.append(command[-1])
        return stanzas[command[-1]]

    monkeypatch.setattr(debian, "_run", run)
    for digest, name in (("aa", "web"), ("bb", "liba"), ("cc", "libb")):
        (tmp_path / f"{name}_{digest}.deb").touch()
    for _ in range(2):
        found = debian.Packages(str(tmp_path)).group("web", lambda name: name.startswith("lib"))
        assert [(package.name, package.version) for package in found] == [("liba", "1:2"), ("libb", "3"), ("web", "1")]
    assert asked == ["web", "liba", "libb"]


def test_lists_are_updated_once_when_a_package_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command: list[str], _: str) -> str:
        asked.append(command[-1])
        return ""

    monkeypatch.setattr(debian, "_run", run)
    with pytest.raises(debian.PackageError, match="apt knows no package web"):
        debian.Packages(str(tmp_path)).group("web", lambda _: True)
    assert asked == ["web", "update", "web"]


def test_modes_are_what_is_said_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        tree = Tree(str(tmp_path / "tree"))
        tree.write("/a/b/file", "text")
        tree.copy("/a/program", str(tmp_path / "tree/a/b/file"), 0o755)
        tree.directory("/tmp", 0o1777)
        ballast.write(tree.host("/a/ballast"), "seed", 1)
    finally:
        os.umask(old)
    found = {
        path.relative_to(tmp_path / "tree").as_posix(): path.stat().st_mode for path in tmp_path.rglob("tree/**/*")
    }
    assert {path: oct(stat.S_IMODE(mode)) for path, mode in found.items()} == {
        "a": "0o755",
        "a/b": "0o755",
        "a/b/file": "0o644",
        "a/program": "0o755",
        "a/ballast": "0o644",
        "tmp": "0o1777",
    }


def test_ballast_is_the_same_each_time_and_differs_by_seed() -> None:
    assert ballast.block("a", 100) == ballast.block("a", 100)
    assert len({ballast.block(seed, 100) for seed in "abc"}) == 3


@pytest.mark.parametrize("name", images.SAMPLES)
def test_every_sample_is_described_in_a_way_that_the_builder_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for what is compiled and fetched, and without the ballast."""
    program = tmp_path / "program"
    program.write_bytes(b"program")
    drivers = {driver: module() for driver in images._DRIVERS}
    workshop = images.Workshop(lambda: pytest.fail("packages are not needed"), str(tmp_path))
    monkeypatch.setattr(workshop, "_kernel", images.Kernel(b"kernel", drivers, ()))
    monkeypatch.setattr(workshop, "nginx", list)
    monkeypatch.setattr(workshop, "hello", lambda: str(program))
    monkeypatch.setattr(workshop, "program", lambda *_: str(program))
    monkeypatch.setattr(ballast, "write", lambda path, seed, _: Path(path).write_text(seed))
    context = tmp_path / "context"
    context.mkdir()
    images.SAMPLES[name].make(workshop, str(context))
    found = description.checked(
        description.parse((context / "image.toml").read_text(), str(context), has_tree=(context / "tree").is_dir())
    )
    assert found.name == name
    assert description.annotations_of(found)
    assert len(found.layers) == (5 if name == "layers" else 1)
    assert os.path.exists(found.layers[0].tree + found.kernel)


def test_a_sample_that_is_unknown_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build.main(["helo"])
    assert "there is no sample helo; there are hello, nginx" in capsys.readouterr().err


def test_an_image_is_built_again_only_when_something_of_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(_: images.Workshop, context: str) -> None:
        Tree(f"{context}/tree").write("/boot/k", "kernel")
        Path(context, "image.toml").write_text('name = "tiny"\ntype = "generic"\nkernel = "/boot/k"\n')

    monkeypatch.setattr(build, "SAMPLES", {"tiny": images.Sample(make, ("hello",))})
    monkeypatch.setattr(compiling, "version", lambda: "compiler 1")
    builder = build.Builder(str(tmp_path / "out"), str(tmp_path / "cache"))
    archive = tmp_path / "out" / "tiny.tar"
    builder.bring_up_to_date(["tiny"])
    first = archive.stat().st_mtime_ns
    builder.bring_up_to_date(["tiny"])
    assert archive.stat().st_mtime_ns == first
    monkeypatch.setattr(compiling, "version", lambda: "compiler 2")
    builder.bring_up_to_date(["tiny"])
    assert archive.stat().st_mtime_ns != first
    builder.verify(["tiny"])
    assert "tiny: built twice, the same bytes" in capsys.readouterr().out
    archive.write_bytes(b"something else")
    with pytest.raises(build.NotReproducible, match="tiny"):
        builder.verify(["tiny"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "tiny.key", "tiny.tar"}
