"""The command lines of unikernel guests, compared whole.

The expectations are what urunc gives the same guests (urunc-dev/urunc, pkg/unikontainers/unikernels/*.go, 2026, and the formats of rumprun's
doc/config.md and Unikraft's lib/ukparam), without the empty words that it leaves where there is nothing to say, and with the pod's DNS server in the place
of its fixed one.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel import guests
from unikeel.errors import BadContent, InvalidArgument
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import DiskSpec, LaunchRequest, TapNet

NET = TapNet("10.88.0.7", 16, "10.88.0.1", "10.88.0.1", "52:54:00:12:34:56", "tap0")
ARGS = ("/bin/app", "-c", "a b")
ENV = ("A=1", "B=two words")


def request(kind: str, monitor: str, **changes: object) -> LaunchRequest:
    config = GuestConfig(kind, monitor, "/k")
    plain = LaunchRequest("c1", config, ARGS, ENV, memory_mib=256, vcpus=1, machine="q35", accel="tcg", network=NET)
    return plain._replace(**changes)  # type: ignore[arg-type]  # each caller's value fits its name


def line(of: LaunchRequest) -> str:
    return guests.guest(of.guest.type).cmdline(of)


def versioned(of: LaunchRequest, version: str) -> LaunchRequest:
    return of._replace(guest=of.guest._replace(version=version))


FULL = request("unikraft", "qemu", initrd=True)


@pytest.mark.parametrize("version", ["", "0.16.1", "0.16.1+x", "v0.20.0-rc1", "1"])
def test_unikraft_with_everything(version: str) -> None:
    assert line(versioned(FULL, version)) == (
        'Unikraft env.vars=[ A=1 "B=two words" ] netdev.ip=10.88.0.7/16:10.88.0.1:10.88.0.1 '
        'vfs.fstab=[ "initrd0:/:extract:::" ] -- /bin/app -c a b'
    )


@pytest.mark.parametrize("version", ["0.15.0", "0.16", "v0.16.0", "0"])
def test_older_unikraft_has_other_words_and_no_variables(version: str) -> None:
    assert line(versioned(FULL, version)) == (
        "Unikraft netdev.ipv4_addr=10.88.0.7 netdev.ipv4_gw_addr=10.88.0.1 netdev.ipv4_subnet_mask=255.255.0.0 "
        "vfs.rootfs=initrd -- /bin/app -c a b"
    )


def test_unikraft_with_nothing() -> None:
    assert line(request("unikraft", "qemu", network=None, env=(), args=())) == "Unikraft --"


@pytest.mark.parametrize("version", ["new", "0.x.1", "0.999999", ".", "0.1\n"])
def test_a_version_that_is_none_is_the_images_fault(version: str) -> None:
    with pytest.raises(BadContent, match="is none"):
        line(versioned(FULL, version))


@pytest.mark.parametrize("variable", ["A=]", "A=[", 'A="x"', "A='x y'"])
def test_a_variable_that_would_end_unikrafts_list_is_refused(variable: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be passed to Unikraft"):
        line(request("unikraft", "qemu", env=(variable,)))


def test_rumprun_with_everything() -> None:
    assert line(request("rumprun", "hvt", disk=DiskSpec("raw"))) == (
        '{"cmdline":"/bin/app -c a b","env":"A=1","env":"B=two words",'
        '"net":{"if":"ukvmif0","cloner":"True","type":"inet","method":"static","addr":"10.88.0.7","mask":"1","gw":"10.88.0.1"},'
        '"blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/data"}}'
    )


def test_rumprun_with_nothing() -> None:
    assert line(request("rumprun", "spt", network=None, env=(), args=())) == '{"cmdline":""}'


@given(
    args=st.lists(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=40), max_size=5)
)
def test_rumpruns_text_never_ends_before_its_end(args: list[str]) -> None:
    made = line(request("rumprun", "hvt", args=tuple(args), env=()))
    assert json.loads(made)["cmdline"] == " ".join(args)


def test_mirage() -> None:
    assert line(request("mirage", "hvt")) == "--ipv4=10.88.0.7/16 --ipv4-gateway=10.88.0.1 /bin/app -c a b"
    assert line(request("mirage", "hvt", network=None, args=())) == ""


def test_mirage_whose_device_has_a_name_of_its_own() -> None:
    config = GuestConfig("mirage", "spt", "/k", net_device="management")
    assert line(request("mirage", "spt", guest=config, args=())) == (
        "--management-ipv4=10.88.0.7/16 --management-ipv4-gateway=10.88.0.1"
    )


def test_mewz_is_told_its_network_and_nothing_else() -> None:
    assert line(request("mewz", "qemu")) == "ip=10.88.0.7/16 gateway=10.88.0.1"
    assert line(request("mewz", "qemu", network=None)) == ""


def test_hermit() -> None:
    assert line(request("hermit", "qemu", initrd=True)) == "ip=10.88.0.7/16 gateway=10.88.0.1 -- /bin/app -c a b"
    assert line(request("hermit", "qemu", network=None)) == "/bin/app -c a b"
    assert line(request("hermit", "qemu", args=())) == "ip=10.88.0.7/16 gateway=10.88.0.1"


@pytest.mark.parametrize("kind", ["unikraft", "rumprun", "mirage", "hermit"])
def test_the_images_command_line_stands_in_for_arguments(kind: str) -> None:
    config = GuestConfig(kind, "qemu", "/k", cmdline="from the image")
    assert "from the image" in line(request(kind, "qemu", guest=config, args=()))
    assert "from the image" not in line(request(kind, "qemu", guest=config))


@pytest.mark.parametrize("kind", ["unikraft", "mirage", "hermit"])
@pytest.mark.parametrize("word", ["a\nb", "a\0b"])
def test_line_breaks_and_nul_are_refused(kind: str, word: str) -> None:
    with pytest.raises(InvalidArgument, match="line break or a NUL"):
        line(request(kind, "qemu", args=(word,)))


def test_a_nul_inside_rumpruns_text_is_escaped() -> None:
    assert line(request("rumprun", "hvt", args=("a\0b\nc",), env=(), network=None)) == '{"cmdline":"a\\u0000b\\nc"}'


@pytest.mark.parametrize(("kind", "limit"), [("unikraft", 2047), ("rumprun", 8191), ("mirage", 8191), ("hermit", 2047)])
def test_limits_are_kept_to_the_byte(kind: str, limit: int) -> None:
    base = len(line(request(kind, "qemu", args=("x",))))
    assert len(line(request(kind, "qemu", args=("x" * (limit - base + 1),)))) == limit
    with pytest.raises(InvalidArgument, match=f"it takes at most {limit}"):
        line(request(kind, "qemu", args=("x" * (limit - base + 2),)))


@pytest.mark.parametrize("kind", ["unikraft", "mirage", "mewz", "hermit"])
def test_unikernels_with_drivers_for_pci_boot_on_q35_unless_the_image_wishes_otherwise(kind: str) -> None:
    assert guests.guest(kind).machine("tcg", "") == "q35"
    assert guests.guest(kind).machine("kvm", "microvm") == "microvm"
