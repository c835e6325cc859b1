"""The init of guests made of ordinary images: what it is told, what it is, and what goes into their initrd."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel import guests, monitors
from unikeel.engine.initrds import complete
from unikeel.errors import InvalidArgument
from unikeel.guests import own_init, urunit
from unikeel.guests.init import building
from unikeel.kernel.memfd import sealed_bytes
from unikeel.model import cpio
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import DiskSpec, FileRole, LaunchRequest, OwnInit, TapNet, UserNet
from unikeel.monitors.contract import Facts

NET = UserNet("10.0.2.15", 24, "10.0.2.2", "10.0.2.3", "52:54:00:12:34:56")
CONFIG = GuestConfig("linux", "qemu", "none", mount_rootfs=True, kernel="default")
REQUEST = LaunchRequest(
    name="web",
    guest=CONFIG,
    args=("sh", "-c", 'echo "two words"\n'),
    env=("A=1", 'Q="quoted"'),
    memory_mib=256,
    vcpus=1,
    machine="q35",
    accel="tcg",
    disk=DiskSpec("raw"),
    network=NET,
    hostname="web",
    uid=1000,
    gid=77,
    workdir="/work",
    own=OwnInit(b"\x7fELF", (("virtio.ko", b"v"), ("virtio_blk.ko", b"b"))),
)


def unpacked(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Every entry of the archives in an initrd: its mode and content, as the kernel unpacks them (later ones win)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        assert data[at : at + 6] == b"070701"
        assert at % cpio.ALIGNMENT == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode(errors="surrogateescape")
        start = at + 110 + fields[11]
        start += -start % 4
        found[name] = (fields[1], data[start : start + fields[6]])
        at = start + fields[6]
        at += -at % 4
    assert found.pop("TRAILER!!!") == (0, b"")
    return found


def test_what_it_is_told() -> None:
    texts = own_init.settings(REQUEST, "/dev/vda").decode().split("\0")
    assert texts == [
        *("h:web", "w:/work", "u:1000", "p:77", "d:/dev/vda", "t:ext4"),
        *("i:10.0.2.15/24", "g:10.0.2.2", "n:10.0.2.3"),
        *("m:virtio.ko", "m:virtio_blk.ko"),
        *("e:A=1", 'e:Q="quoted"'),
        *("a:sh", "a:-c", 'a:echo "two words"\n'),
        "",
    ]
    alone = REQUEST._replace(disk=DiskSpec("raw", read_only=True), network=None, env=(), args=("x",), own=OwnInit(b"i"))
    texts = own_init.settings(alone, "/dev/ubda").decode().split("\0")
    assert texts == ["h:web", "w:/work", "u:1000", "p:77", "d:/dev/ubda", "t:ext4", "r:", "a:x", ""]


def test_the_console_that_is_there_with_its_driver() -> None:
    request = REQUEST._replace(guest=CONFIG._replace(console="virtio"))
    with ExitStack() as stack:
        complete_request, fd = complete(request, -1, stack)
        told = unpacked(os.pread(fd, 1 << 20, 0))["unikeel.conf"][1]
        argv = monitors.plan(complete_request, Facts("/m", (9, 0), (), "")).argv
    assert told.startswith(b"c:/dev/hvc0\0h:web\0")
    assert argv[-1] == "panic=-1 console=hvc0 quiet rdinit=/init"
    assert "-serial" not in argv


def test_what_cannot_be_told() -> None:
    with pytest.raises(InvalidArgument, match="names no program to run"):
        own_init.settings(REQUEST._replace(args=()), "/dev/vda")
    with pytest.raises(InvalidArgument, match="contains a NUL"):
        own_init.settings(REQUEST._replace(env=("A=\0",)), "/dev/vda")
    with pytest.raises(InvalidArgument, match="at most 4096"):
        own_init.settings(REQUEST._replace(args=("x",) * 4097), "/dev/vda")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_any_words_come_through_whole(words: list[str]) -> None:
    told = own_init.settings(REQUEST._replace(args=tuple(words), own=OwnInit(b"")), "/dev/vda")
    texts = told.decode().split("\0")
    assert [text[2:] for text in texts if text.startswith("a:")] == words


def test_the_plan_of_an_ordinary_image_on_each_kind_of_monitor() -> None:
    with ExitStack() as stack:
        for monitor, disk, console in (("qemu", "/dev/vda", "ttyS0"), ("uml", "/dev/ubda", "tty0")):
            config = CONFIG._replace(monitor=monitor)
            asked = REQUEST._replace(guest=config, network=NET if monitor == "qemu" else None)
            request, fd = complete(asked, -1, stack)
            plan = monitors.plan(request, Facts("/m", (9, 0), (), ""))
            assert plan.argv[-1] == f"panic=-1 console={console} quiet rdinit=/init"
            assert FileRole.INITRD in {file.role for file in plan.files}
            files = unpacked(os.pread(fd, 1 << 20, 0))
            assert files["init"] == (0o100755, b"\x7fELF")
            assert files["modules/virtio.ko"] == (0o100400, b"v")
            assert files["unikeel.conf"] == (0o100400, own_init.settings(asked, disk))
            assert files["modules"][0] == 0o040755


# -- the program ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("init") / building.NAME)
    assert building.main([path]) == 0
    return path


def test_it_is_small_static_and_built_once(program: str) -> None:
    info = os.stat(program)
    assert info.st_size < 100_000
    with open(program, "rb") as file:
        data = file.read()
    assert b"ld-linux" not in data
    assert data[:5] == b"\x7fELF\x02"
    assert building.is_current(program)
    assert building.main([program]) == 0
    assert os.stat(program).st_mtime_ns == info.st_mtime_ns


def test_a_compiler_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    assert building.main([str(tmp_path / "x")]) == 1
    assert "cannot be built: /nonexistent/cc" in capfd.readouterr().err
    monkeypatch.setenv("CC", "false")
    assert building.main([str(tmp_path / "x")]) == 1
    assert building.main([]) == 2
    assert os.listdir(tmp_path) == []


PARSER = """
#include "settings.h"
#include "sys.h"
#include "text.h"
int main(void)
{
    static struct settings s;
    if (!read_settings(&s))
        return 1;
    say(s.device ? s.device : "-", "|", s.type ? s.type : "-", "|", s.read_only ? "ro" : "rw", "|", s.host ? s.host : "-", NULL);
    say(s.interface ? s.interface : "-", "|", s.gateway ? s.gateway : "-", "|", s.dns ? s.dns : "-", "|", s.directory ? s.directory : "-", NULL);
    say(digits(s.user), NULL);
    say(digits(s.group), NULL);
    for (char **word = s.modules; *word; word++)
        say("m:", *word, NULL);
    for (char **word = s.variables; *word; word++)
        say("e:", *word, NULL);
    for (char **word = s.arguments; *word; word++)
        say("a:", *word, NULL);
    return 0;
}
"""


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The init's own reader of its settings as an ordinary program with every access checked, and the file that it reads."""
    directory = tmp_path_factory.mktemp("parser")
    (directory / "main.c").write_text(PARSER)
    sources = [os.path.join(building.directory(), name) for name in ("settings.c", "text.c")]
    settings = (Path(building.directory()) / "settings.c").read_text()
    changed = directory / "settings.c"
    changed.write_text(settings.replace('"/unikeel.conf"', f'"{directory}/conf"'))
    options = (
        "-std=gnu11",
        "-g",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
        "-fno-builtin",
        "-I",
        building.directory(),
    )
    output = str(directory / "parser")
    subprocess.run(
        ["cc", *options, "-o", output, str(directory / "main.c"), str(changed), sources[1]], check=True, timeout=300
    )
    return output, str(directory / "conf")


def read(parser: tuple[str, str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    with open(parser[1], "wb") as file:
        file.write(content)
    return subprocess.run([parser[0]], capture_output=True, check=False, timeout=60)


def test_what_it_is_told_is_what_it_reads(parser: tuple[str, str]) -> None:
    done = read(parser, own_init.settings(REQUEST._replace(args=("sh", "-c", "two words")), "/dev/vda"))
    assert (done.returncode, done.stdout.decode().splitlines()) == (
        0,
        [
            "/dev/vda|ext4|rw|web",
            "10.0.2.15/24|10.0.2.2|10.0.2.3|/work",
            "1000",
            "77",
            *("m:virtio.ko", "m:virtio_blk.ko"),
            *("e:A=1", 'e:Q="quoted"'),
            *("a:sh", "a:-c", "a:two words"),
        ],
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"h",
        b"h:x",
        b"hx\0",
        b"h\0",
        b"\0",
        b"z:x\0",
        b"u:-1\0",
        b"u:99999999999\0",
        b"u:\0",
        b"u:1x\0",
        b"m:\0" * 129,
        b"h:a\0\0",
    ],
)
def test_what_it_cannot_mean_it_refuses(parser: tuple[str, str], content: bytes) -> None:
    assert read(parser, content).returncode == 1


# -- urunit --------------------------------------------------------------------------------------------------------------

URUNIT = REQUEST._replace(
    guest=GuestConfig("linux", "qemu", "/k", mount_rootfs=True),
    args=("/urunit", "/app", "two words"),
    own=None,
    network=None,
)
#: urunc's format (docs of urunit's configuration, pkg/unikontainers/unikernels/linux.go, 2026).
EXPECTED = b'UES\nA=1\nQ="quoted"\nUEE\nUCS\nUID:1000\nGID:77\nWD:/work\nUCE\n'


def test_urunit_finds_its_configuration_as_the_initrd_that_is_kept() -> None:
    with ExitStack() as stack:
        request, fd = complete(URUNIT, -1, stack)
        assert os.pread(fd, 1 << 20, 0) == EXPECTED
    assert (request.initrd, request.retained) == (True, True)
    assert guests.guest("linux").cmdline(request) == (
        "panic=-1 console=ttyS0 quiet root=/dev/vda rw retain_initrd URUNIT_CONFIG=/sys/firmware/initrd "
        "init=/urunit -- /app 'two words'"
    )


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000001])
def test_urunit_finds_its_configuration_in_a_second_archive(size: int) -> None:
    """The image's own initrd comes first, unchanged."""
    own = cpio.archive({"/init": cpio.File(b"i", 0o755)}) + bytes(size)
    with ExitStack() as stack:
        image = stack.enter_context(sealed_bytes("image", own))
        request, fd = complete(URUNIT._replace(initrd=True, disk=None), image.fileno(), stack)
        made = os.pread(fd, 4 << 20, 0)
    assert made[: len(own)] == own
    assert unpacked(made) == {"init": (0o100755, b"i"), "urunit.conf": (0o100400, EXPECTED)}
    assert guests.guest("linux").cmdline(request) == (
        "panic=-1 console=ttyS0 quiet root=/dev/ram0 rw URUNIT_CONFIG=/urunit.conf rdinit=/urunit -- /app 'two words'"
    )


def test_urunit_makes_a_route_to_a_gateway_outside_of_its_network() -> None:
    outside = TapNet("10.1.0.7", 32, "169.254.1.1", "", "52:54:00:12:34:56", "tap0")
    assert " URUNIT_DEFROUTE=1 " in guests.guest("linux").cmdline(URUNIT._replace(network=outside))
    assert "URUNIT_DEFROUTE" not in guests.guest("linux").cmdline(URUNIT._replace(network=NET))


def test_behind_a_loader_urunit_is_told_by_the_line() -> None:
    request = URUNIT._replace(initrd=True)
    assert guests.guest("linux").added(request) == guests.contract.Added()
    assert " A=1 " in guests.guest("linux").cmdline(request._replace(env=("A=1",)))


def test_what_urunit_cannot_be_told() -> None:
    with pytest.raises(InvalidArgument, match="line break or a NUL"):
        urunit.configuration(URUNIT._replace(env=("A=1\nUEE",)))


def test_others_get_the_images_initrd_itself() -> None:
    with ExitStack() as stack:
        image = stack.enter_context(sealed_bytes("image", b"x"))
        plain = URUNIT._replace(args=("/init",), initrd=True)
        assert complete(plain, image.fileno(), stack) == (plain, image.fileno())
        assert complete(plain._replace(initrd=False), -1, stack).fd == -1


def test_our_init_is_told_ipv6_addresses_in_full() -> None:
    """As 32 digits, so that it need not know the shorter forms; without an IPv4 address, these alone."""
    network = TapNet("", 0, "", "", "52:54:00:12:34:56", "uk-1", address6="fd00::7", prefix6=64, gateway6="fe80::1")
    told = own_init.settings(REQUEST._replace(network=network, own=OwnInit(b"init")), "/dev/vda").split(b"\0")
    assert b"j:fd000000000000000000000000000007/64" in told
    assert b"k:fe800000000000000000000000000001" in told
    assert not any(text.startswith((b"i:", b"g:")) for text in told)


@pytest.mark.parametrize("path", ["", "/", "x", "/a/../b", "/a//b", "/a/", "/a\0"])
def test_a_path_that_cannot_be_in_an_archive(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be in an archive"):
        cpio.archive({path: cpio.File(b"")})
