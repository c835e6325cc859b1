"""What QEMU says without need is left out of a task's standard error: that it waits for its console's other end, which has long connected."""

from __future__ import annotations

_NAME = b"qemu-system-"
_REMARK = b": info: QEMU waiting for connection on:"
#: A longer line is no such remark.
_LONGEST = 4096


class Remarks:
    """Takes what a monitor says, piece by piece, and gives it without those lines. Whatever cannot be one of them is given at once."""

    def __init__(self) -> None:
        self._held = b""
        self._within = False

    def feed(self, data: bytes) -> bytes:
        """The next piece; what of it, and of what was held back, is to be passed on."""
        passed = bytearray()
        *lines, rest = (self._held + data).split(b"\n")
        self._held = b""
        for line in (*(line + b"\n" for line in lines), *((rest,) if rest else ())):
            if self._within or not (line.startswith(_NAME) or _NAME.startswith(line)):
                passed += line
                self._within = not line.endswith(b"\n")
            elif not line.endswith(b"\n"):
                if len(line) < _LONGEST:
                    self._held = line
                else:
                    passed += line
                    self._within = True
            elif _REMARK not in line:
                passed += line
        return bytes(passed)

    def end(self) -> bytes:
        """There is no more: what was held back."""
        held, self._held = self._held, b""
        return held
