"""Device-mapper's requests and answers as bytes, and what thin pools say of themselves."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import BadContent, FailedPrecondition, InvalidArgument
from unikeel.kernel.devmapper import Target, thin, wire
from unikeel.kernel.devmapper.wire import Flag
from unikeel.snapshots.thin.reference import pool_ref

_POOL = "3 129/4096 17/98304 - rw discard_passdown error_if_no_space - 1024"


def test_requests_have_the_kernel_s_layout() -> None:
    """The offsets are those of struct dm_ioctl."""
    raw = wire.request(1024, name="a-name", uuid="a-uuid", flags=Flag.READ_ONLY, event=0x670000, targets=1, data=b"xyz")
    assert len(raw) == 1024
    assert struct.unpack_from("=3I4Ii", raw, 0)[:7] == (4, 0, 0, 1024, 312, 1, 0)
    assert struct.unpack_from("=II", raw, 28) == (1, 0x670000)
    assert [bytes(raw[at : at + 7]) for at in (48, 176, 312)] == [b"a-name\0", b"a-uuid\0", b"xyz\0\0\0\0"]


def test_a_request_has_room_for_what_it_carries() -> None:
    assert len(wire.request(1024, data=bytes(4000))) == 4312


@pytest.mark.parametrize("name", ["x" * 128, "a\0b", "ä"])
def test_names_that_device_mapper_cannot_have(name: str) -> None:
    with pytest.raises(InvalidArgument):
        wire.request(1024, name=name)


def test_the_longest_name_and_uuid() -> None:
    info = wire.info_of(wire.request(1024, name="n" * 127, uuid="u" * 128))
    assert (info.name, info.uuid) == ("n" * 127, "u" * 128)


@given(st.integers(0, 4095), st.integers(0, (1 << 20) - 1))
def test_device_numbers(major: int, minor: int) -> None:
    info = wire.info_of(wire.request(512, number=wire.device_number(major, minor)))
    assert (info.major, info.minor) == (major, minor)


_TARGETS = st.builds(
    Target,
    st.integers(0, 1 << 40).map(lambda number: number * 512),
    st.integers(0, 1 << 40).map(lambda number: number * 512),
    st.sampled_from(["thin", "linear", "thin-pool"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)


@given(st.lists(_TARGETS, max_size=4))
def test_tables_are_read_as_they_were_written(targets: list[Target]) -> None:
    """A request's table counts from one target to the next, an answer's from the first: see the header."""
    count, data = wire.table_of(targets)
    at = 0
    found: list[Target] = []
    for _ in range(count):
        found += wire.parse(data[at:], 1)
        at += struct.unpack_from("=I", data, at + 20)[0]
    assert (found, at) == (targets, len(data))


def test_tables_are_made_of_sectors() -> None:
    with pytest.raises(InvalidArgument, match="sectors"):
        wire.table_of([Target(0, 1000, "zero", "")])


@given(st.binary(max_size=200), st.integers(0, 5))
def test_whatever_answer_is_read_or_refused(data: bytes, count: int) -> None:
    with contextlib.suppress(FailedPrecondition):
        assert len(wire.parse(data, count)) == count


def _names(entries: list[tuple[int, str]]) -> bytes:
    pieces = []
    for index, (number, name) in enumerate(entries):
        piece = struct.pack("=QI", number, 0) + name.encode() + b"\0"
        piece += bytes(-len(piece) % 8)
        following = len(piece) if index + 1 < len(entries) else 0
        pieces.append(struct.pack("=QI", number, following) + piece[12:])
    return b"".join(pieces)


@pytest.mark.parametrize(
    "entries", [[], [("one", 253, 0)], [("one", 253, 0), ("a-much-longer-name", 253, 300), ("b", 252, 1)]]
)
def test_lists_of_devices(entries: list[tuple[str, int, int]]) -> None:
    data = _names([(wire.device_number(major, minor), name) for name, major, minor in entries])
    assert list(wire.names_of(wire.request(4096, data=data))) == entries


@given(st.binary(max_size=200))
def test_whatever_list_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(FailedPrecondition):
        list(wire.names_of(wire.request(0, data=data)))


def test_messages() -> None:
    assert wire.message_to("create_thin 1") == bytes(8) + b"create_thin 1\0"
    with pytest.raises(InvalidArgument):
        wire.message_to("a\0b")
    answer = wire.request(1024, flags=Flag.DATA_OUT, data=b"the answer\0rest")
    assert wire.text_of(answer) == "the answer"
    assert wire.text_of(wire.request(1024, data=b"no answer")) == ""


def test_what_a_pool_says() -> None:
    status = thin.pool_status((Target(0, 512, "thin-pool", _POOL),))
    assert status == thin.PoolStatus(129, 4096, 17, 98304, None, "rw", needs_check=False)
    text = _POOL.replace(" - rw", " 52 out_of_data_space").replace("space - ", "space needs_check ")
    status = thin.pool_status((Target(0, 512, "thin-pool", text),))
    assert (status.held_root, status.mode, status.needs_check) == (52, "out_of_data_space", True)
    assert thin.pool_status((Target(0, 512, "thin-pool", "Fail"),)).mode == "Fail"
    for text in ("Error", "", "1 2/3"):
        with pytest.raises(BadContent):
            thin.pool_status((Target(0, 512, "thin-pool", text),))


def test_what_a_thin_device_says() -> None:
    assert thin.mapped_bytes((Target(0, 512, "thin", "1024 2047"),)) == 1024 * 512
    assert thin.mapped_bytes((Target(0, 512, "thin", "0 -"),)) == 0
    for targets in ((), (Target(0, 512, "zero", "0 -"),), (Target(0, 512, "thin", "Fail"),)):
        with pytest.raises(BadContent):
            thin.mapped_bytes(targets)


def test_what_a_pool_is_told() -> None:
    assert (thin.create_thin(7), thin.create_snap(8, 7)) == ("create_thin 7", "create_snap 8 7")
    assert thin.delete(thin.MAX_ID) == "delete 16777215"
    for number in (-1, 1 << 24):
        with pytest.raises(InvalidArgument):
            thin.delete(number)


def test_names_of_a_pool_s_devices() -> None:
    ref = pool_ref("data", "0" * 32)
    assert (ref.dm_name, ref.device) == ("unikeel-data", "/dev/mapper/unikeel-data")
    assert ref.number_of(ref.thin_name(17)) == 17
    for name in ("unikeel-data", "unikeel-data-", "unikeel-data-01", "unikeel-data-x", "unikeel-other-1", "data-1"):
        assert ref.number_of(name) is None
