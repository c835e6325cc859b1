"""Volumes: what `-v` says, and how they reach each kind of guest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.model.rootfs import Rootfs
from unikeel.model.volumes import Volume, parse
from unikeel.model.ways import MOST, Receiver, Way, place, way

OWN = Receiver("linux", "qemu", Rootfs.SNAPSHOT, own_init=True, shared=("virtiofs", "9p"))
DATA = Volume("/srv", "/data")


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/srv:/data", DATA),
        ("/srv:/data:rw", DATA),
        ("/srv:/data/:ro", Volume("/srv", "/data", read_only=True)),
        ("/a b,c:/d//e", Volume("/a b,c", "/d/e")),
    ],
)
def test_what_is_a_volume(text: str, volume: Volume) -> None:
    assert parse(text) == volume


@pytest.mark.parametrize(
    "text", ["", "/srv", "srv:/data", "/srv:data", "/srv:/", "/srv:/a:rx", "/srv:/a/../..", ":/a", "/srv:"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


@given(st.text())
def test_no_text_breaks_it_and_no_target_climbs(text: str) -> None:
    try:
        volume = parse(text)
    except InvalidArgument:
        return
    parts = volume.target.split("/")
    assert parts[0] == ""
    assert parts[1:]
    assert not {"", ".", ".."} & set(parts[1:])


@pytest.mark.parametrize(
    ("receiver", "expected"),
    [
        (OWN, (Way.SHARE, "virtiofs")),
        (OWN._replace(root=Rootfs.SHARED), (Way.ROOT, "")),
        (OWN._replace(shared=("9p",)), (Way.SHARE, "9p")),
        (OWN._replace(shared=()), (Way.ARCHIVE, "")),
        (Receiver("linux", "firecracker", Rootfs.INITRD), (Way.ARCHIVE, "")),
        (Receiver("unikraft", "qemu", Rootfs.SHARED, shared=("9p",)), (Way.ROOT, "")),
    ],
)
def test_how_they_get_there(receiver: Receiver, expected: tuple[Way, str]) -> None:
    assert way([DATA], receiver) == expected
    assert way([], receiver) == (Way.NONE, "")


def test_what_cannot_be_given_is_an_error_that_names_it() -> None:
    with pytest.raises(
        Unimplemented, match="guest mirage on spt with the root none cannot be given the volume at /data"
    ):
        way([DATA], Receiver("mirage", "spt", Rootfs.NONE))
    with pytest.raises(InvalidArgument, match="two volumes are to be at '/data'"):
        place([DATA, DATA], OWN)
    with pytest.raises(InvalidArgument, match="256 volumes, not 257"):
        place([Volume("/srv", f"/data/{number}") for number in range(MOST + 1)], OWN)
