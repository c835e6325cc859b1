"""The host's kernel for ordinary images, whom their programs run as, and which configuration options make."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.engine import default_kernel, describing
from unikeel.engine.settings import Options
from unikeel.errors import BadContent, InvalidArgument, Unavailable
from unikeel.images.users import User, resolve
from unikeel.model.image_fields import GuestConfig


def installed(root: Path, *versions: str) -> None:
    (root / "boot").mkdir(exist_ok=True)
    for version in versions:
        (root / "boot" / f"vmlinuz-{version}").write_bytes(b"kernel " + version.encode())
        modules = root / "lib/modules" / version
        modules.mkdir(parents=True)
        (modules / "modules.dep").write_text("")


def test_the_newest_kernel_that_has_its_modules(tmp_path: Path) -> None:
    installed(tmp_path, "6.1.0-9-amd64", "6.1.0-10-amd64", "5.10.0-30-amd64")
    (tmp_path / "boot/vmlinuz-6.12.0-amd64").touch()
    found = default_kernel.find("", "", str(tmp_path))
    assert found == (f"{tmp_path}/boot/vmlinuz-6.1.0-10-amd64", f"{tmp_path}/lib/modules/6.1.0-10-amd64")
    with default_kernel.open_image(found) as image, open(image.fileno(), "rb", closefd=False) as file:
        assert file.read() == b"kernel 6.1.0-10-amd64"


def test_a_host_without_a_kernel_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no kernel to boot guests with") as caught:
        default_kernel.find("", "", str(tmp_path))
    assert "linux-image" in caught.value.hint
    with pytest.raises(Unavailable, match="is not there"):
        default_kernel.find("/nonexistent", "", str(tmp_path))
    with pytest.raises(Unavailable, match="cannot be read"):
        default_kernel.open_image(default_kernel.DefaultKernel("/nonexistent", ""))


def modules(tmp_path: Path, **files: bytes) -> str:
    for name, data in files.items():
        (tmp_path / name.replace("__", ".")).write_bytes(data)
    return str(tmp_path)


def test_drivers_come_after_what_they_need_and_once(tmp_path: Path) -> None:
    lines = [
        "kernel/virtio.ko:",
        "kernel/virtio_ring.ko.xz:",
        "kernel/virtio-mmio.ko: kernel/virtio.ko kernel/virtio_ring.ko.xz",
        "kernel/virtio_blk.ko.gz: kernel/virtio.ko kernel/virtio_ring.ko.xz",
        "kernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko kernel/virtio.ko kernel/virtio_ring.ko.xz",
        "kernel/net_failover.ko: kernel/failover.ko",
        "kernel/failover.ko:",
        "kernel/evdev.ko:",
        "kernel/button.ko:",
    ]
    (tmp_path / "modules.dep").write_text("\n".join(lines))
    (tmp_path / "modules.builtin").write_text("kernel/virtio-pci.ko\nkernel/ext4.ko\n")
    (tmp_path / "kernel").mkdir()
    for line in lines:
        path = line.partition(":")[0]
        data = path.encode()
        packed = lzma.compress(data) if path.endswith(".xz") else gzip.compress(data) if path.endswith(".gz") else data
        (tmp_path / path).write_bytes(packed)
    found = list(default_kernel.drivers(str(tmp_path)))
    assert [name for name, _ in found] == [
        *("virtio_ring.ko", "virtio.ko", "virtio_mmio.ko", "virtio_blk.ko"),
        *("failover.ko", "net_failover.ko", "virtio_net.ko", "evdev.ko", "button.ko"),
    ]
    assert dict(found)["virtio_ring.ko"] == b"kernel/virtio_ring.ko.xz"
    assert dict(found)["virtio_blk.ko"] == b"kernel/virtio_blk.ko.gz"


@pytest.mark.parametrize(
    ("dependencies", "file", "message"),
    [
        ("", "", "have no virtio_pci"),
        ("virtio_pci.ko:", "", "cannot be read"),
        ("virtio_pci.ko.zst:", "virtio_pci.ko.zst", "damaged, or compressed in a way"),
        ("virtio_pci.ko.xz:", "virtio_pci.ko.xz", "damaged, or"),
        ("virtio_pci.ko.gz:", "virtio_pci.ko.gz", "damaged, or"),
    ],
)
def test_drivers_that_are_missing_or_damaged(tmp_path: Path, dependencies: str, file: str, message: str) -> None:
    (tmp_path / "modules.dep").write_text(dependencies)
    if file:
        (tmp_path / file).write_bytes(b"nonsense")
    with pytest.raises(Unavailable, match=message):
        list(default_kernel.drivers(str(tmp_path)))


def test_the_init_that_was_not_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unikeel.guests.init.building.program", lambda: "/nonexistent/init")
    with pytest.raises(Unavailable, match="the guests' init /nonexistent/init cannot be read"):
        default_kernel.own_init(None)


PASSWD = b"root:x:0:0::/root:/bin/sh\nbroken\napp:x:1000:1001::/:/bin/sh\nbad:x:-1:x::/:\n"
GROUP = b"root:x:0:\nextra:x:77:app\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0)),
        ("app", User(1000, 1001)),
        ("1000", User(1000, 1001)),
        ("1234", User(1234, 0)),
        ("app:extra", User(1000, 77)),
        ("1000:extra", User(1000, 77)),
        ("app:5", User(1000, 5)),
        ("7:8", User(7, 8)),
        ("root", User(0, 0)),
    ],
)
def test_a_user_by_name_and_number(text: str, user: User) -> None:
    files = {"/etc/passwd": PASSWD, "/etc/group": GROUP}
    assert resolve(text, files.get) == user


@pytest.mark.parametrize("text", ["nobody", "bad", "app:none", "4294967295", "99999999999", "app:99999999999"])
def test_a_user_that_is_not_there(text: str) -> None:
    with pytest.raises(BadContent):
        resolve(text, {"/etc/passwd": PASSWD, "/etc/group": GROUP}.get)


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_hostile_files_never_do_more_than_be_refused(text: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve(text, {"/etc/passwd": passwd, "/etc/group": group}.get)
    except BadContent:
        return
    assert 0 <= user.uid < 1 << 32
    assert 0 <= user.gid < 1 << 32


def test_numbers_need_no_file() -> None:
    def read(path: str) -> bytes | None:
        raise AssertionError(path)

    assert resolve("1:2", read) == User(1, 2)


def test_options_that_make_an_ordinary_image_a_guest() -> None:
    found = describing._from_options(Options(guest="linux", kernel="default", monitor="uml"))
    assert found == GuestConfig("linux", "uml", "none", mount_rootfs=True, kernel="default")
    found = describing._from_options(
        Options(guest="linux", kernel="/boot/k", annotations=(("org.unikeel.machine", "q35"),))
    )
    assert found == GuestConfig("linux", "qemu", "/boot/k", mount_rootfs=True, machine="q35")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(guest="linux"), "--kernel .* is missing"),
        (Options(kernel="default"), "--guest is missing"),
        (Options(guest="unikraft", kernel="default"), "has no default kernel"),
        (Options(guest="linuks", kernel="/k"), "guest type 'linuks' is unknown"),
        (Options(guest="linux", kernel="../k"), "must be a clean path"),
        (Options(guest="linux", kernel="default", monitor="hvt"), "monitor 'hvt' cannot run guest 'linux'"),
    ],
)
def test_options_that_do_not_go_together(options: Options, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        describing._from_options(options)


def test_an_annotation_of_ours_that_means_nothing_is_refused() -> None:
    describing._check_annotations(
        Options(annotations=(("org.unikeel.console", "x"), ("com.urunc.unikernel.more", "y"), ("z", "")))
    )
    for key, hint in (("org.unikeel.consol", "did you mean 'org.unikeel.console'"), ("org.unikeel.network", "known: ")):
        with pytest.raises(InvalidArgument, match=f"the annotation '{key}' is unknown here") as refused:
            describing._check_annotations(Options(annotations=((key, "virtio"),)))
        assert hint in refused.value.hint
