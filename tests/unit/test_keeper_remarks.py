"""The keeper leaves out one remark of QEMU's, as whole lines, however it arrives; everything else passes, at once where it can."""

from __future__ import annotations

import pytest

from unikeel.keeper.remarks import Remarks

REMARK = b"qemu-system-x86_64: -chardev socket,id=console,fd=5,server=on,wait=on: info: QEMU waiting for connection on: disconnected:unix:x,server=on\n"
ERROR = b"qemu-system-x86_64: error: no such machine\n"


@pytest.mark.parametrize("size", [1, 3, 40, 10_000])
def test_only_the_remark_is_left_out(size: int) -> None:
    said = (
        b"hook: hello\n"
        + REMARK
        + ERROR
        + REMARK
        + b"the guest: info: QEMU waiting for connection on: me\n"
        + b"qemu-sys"
    )
    remarks = Remarks()
    passed = b"".join(remarks.feed(said[at : at + size]) for at in range(0, len(said), size)) + remarks.end()
    assert passed == said.replace(REMARK, b"")


def test_what_cannot_be_a_remark_does_not_wait_for_its_line_s_end() -> None:
    remarks = Remarks()
    assert remarks.feed(b"waits") == b"waits"
    assert remarks.feed(b" for\nqemu") == b" for\n"
    assert remarks.feed(b"ck") == b"qemuck"
    assert remarks.feed(REMARK) == REMARK  # within a line


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    remarks = Remarks()
    assert remarks.feed(REMARK[:-1] + b"x" * 5000)
    assert remarks.end() == b""
