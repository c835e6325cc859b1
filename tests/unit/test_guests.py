"""Guests: the registry, and the command lines."""

from __future__ import annotations

import pytest

from unikeel import guests
from unikeel.errors import InvalidArgument
from unikeel.guests import linux
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import GUESTS
from unikeel.model.plan import DiskSpec, LaunchRequest, UserNet

NET = UserNet("10.0.2.15", 24, "10.0.2.2", "10.0.2.3", "52:54:00:12:34:56")


def request(kind: str = "linux", *args: str, cmdline: str = "", env: tuple[str, ...] = ()) -> LaunchRequest:
    config = GuestConfig(kind, "qemu", "/k", cmdline=cmdline)
    return LaunchRequest("c1", config, args, env, memory_mib=256, vcpus=1, machine="q35", accel="tcg")


def line(of: LaunchRequest) -> str:
    return guests.guest(of.guest.type).cmdline(of)


def test_offered_guests_know_their_names() -> None:
    assert guests.offered() == ("generic", "hermit", "linux", "mewz", "mirage", "rumprun", "unikraft")
    assert [guests.guest(name).name for name in guests.offered()] == list(guests.offered())


def test_every_guest_that_an_image_may_name_is_offered() -> None:
    assert guests.offered() == tuple(sorted(GUESTS))


def test_an_unknown_guest_comes_with_the_nearest_spelling() -> None:
    with pytest.raises(InvalidArgument) as caught:
        guests.guest("linuks")
    assert caught.value.hint.startswith("did you mean 'linux'?")


def test_linux_with_everything() -> None:
    full = request("linux", "/bin/app", "one", "two words", env=("A=1", "B=x y"))._replace(
        disk=DiskSpec("raw"), network=NET, hostname="web"
    )
    assert line(full) == (
        "panic=-1 console=ttyS0 quiet root=/dev/vda rw ip=10.0.2.15::10.0.2.2:255.255.255.0:web:eth0:off:10.0.2.3 "
        'A=1 "B=x y" init=/bin/app -- one "two words"'
    )


def test_linux_from_an_initrd_alone() -> None:
    assert line(request("linux", "/init")._replace(initrd=True)) == (
        "panic=-1 console=ttyS0 quiet root=/dev/ram0 rw rdinit=/init"
    )


def test_linux_whose_initrd_only_loads_the_disk() -> None:
    assert line(request("linux", "/sbin/nginx")._replace(initrd=True, disk=DiskSpec("raw", read_only=True))) == (
        "panic=-1 console=ttyS0 quiet root=/dev/vda ro init=/sbin/nginx"
    )


def test_linux_takes_the_images_command_line_if_there_are_no_arguments() -> None:
    assert line(request(cmdline="/app -x 1")).endswith(" init=/app -- -x 1")
    assert line(request("linux", "/other", cmdline="/app")).endswith(" init=/other")
    assert line(request()) == "panic=-1 console=ttyS0 quiet"


def test_urunit_reads_single_quotes() -> None:
    assert line(request("linux", "/urunit", "/app", "two words")).endswith("init=/urunit -- /app 'two words'")
    with pytest.raises(InvalidArgument, match="single quote"):
        line(request("linux", "/urunit", "it's two"))


@pytest.mark.parametrize("word", ['{"a":1}', "a=b", "\u00e9", 'x={"a":"b"}'])
def test_words_that_linux_gives_back_unchanged_are_not_quoted(word: str) -> None:
    assert line(request("linux", "/app", word)).endswith(f" -- {word}")


@pytest.mark.parametrize("word", ["", "a b", "a\tb", "caf\u00e0", "A=b c"])
def test_words_that_linux_would_split_are_quoted(word: str) -> None:
    # The kernel takes byte 0xA0 for a space, and "\u00e0" in UTF-8 ends with it.
    assert line(request("linux", "/app", word)).endswith(f' -- "{word}"')


@pytest.mark.parametrize("word", ['"', '"a"', 'a"b', 'a="b"', 'say "it now"'])
def test_words_that_cannot_be_said_are_refused(word: str) -> None:
    with pytest.raises(InvalidArgument, match="no way to escape a double quote"):
        line(request("linux", "/app", word))


@pytest.mark.parametrize("variable", ["A", "=x", ""])
def test_what_is_no_variable_is_refused(variable: str) -> None:
    with pytest.raises(InvalidArgument, match="not an environment variable"):
        line(request("linux", env=(variable,)))


def test_the_kernels_limits_are_kept_to_the_byte() -> None:
    base = len(line(request("linux", "/app", "x")))
    assert len(line(request("linux", "/app", "x" * (2047 - base + 1)))) == linux.CMDLINE_LIMIT == 2047
    with pytest.raises(InvalidArgument, match="has 2048 bytes; it takes at most 2047"):
        line(request("linux", "/app", "x" * (2047 - base + 2)))


def test_the_kernels_limits_on_words() -> None:
    line(request("linux", "/app", *["x"] * 31, env=("A=1",) * 30))
    with pytest.raises(InvalidArgument, match="at most 31 arguments, not 32"):
        line(request("linux", "/app", *["x"] * 32))
    with pytest.raises(InvalidArgument, match="at most 30 environment variables, not 31"):
        line(request("linux", env=("A=1",) * 31))


@pytest.mark.parametrize("word", ["a\nb", "a\0b"])
def test_line_breaks_and_nul_are_refused(word: str) -> None:
    with pytest.raises(InvalidArgument, match="line break or a NUL"):
        line(request("generic", word))
    with pytest.raises(InvalidArgument, match="line break or a NUL"):
        line(request("linux", "/app", word))


@pytest.mark.parametrize("hostname", ["", "a b", "a:b", "x" * 64])
def test_a_host_name_that_would_break_the_line_is_refused(hostname: str) -> None:
    with pytest.raises(InvalidArgument, match="host name"):
        line(request()._replace(network=NET, hostname=hostname))


def test_generic_passes_its_line_through() -> None:
    assert line(request("generic", 'a "b', "c,d", cmdline="unused", env=("A=1",))) == 'a "b c,d'
    assert line(request("generic", cmdline="from the image")) == "from the image"
    with pytest.raises(InvalidArgument, match="at most 4095"):
        line(request("generic", "x" * 4096))


@pytest.mark.parametrize(
    ("kind", "accel", "wish", "machine"),
    [
        ("linux", "tcg", "", "q35"),
        ("linux", "tcg", "microvm", "q35"),
        ("linux", "kvm", "microvm", "microvm"),
        ("linux", "kvm", "", "q35"),
        ("generic", "tcg", "", "microvm"),
        ("generic", "kvm", "q35", "q35"),
    ],
)
def test_the_machine_a_guest_boots_on(kind: str, accel: str, wish: str, machine: str) -> None:
    assert guests.guest(kind).machine(accel, wish) == machine
