"""A person at a terminal."""

from __future__ import annotations

import os
import pty
import select
import tty

from lab_support.waiting import PATIENCE, Stopwatch
from lab_support.world import World


class Terminal:
    """A pseudo-terminal with a program of the lab at its other end."""

    def __init__(self, world: World, words: list[str]) -> None:
        self._fd, other = pty.openpty()
        tty.setraw(other)
        self.process = world.lab.popen(words, stdin=other, stdout=other, stderr=other, start_new_session=True)
        os.close(other)
        self.text = b""

    def type(self, data: bytes) -> None:
        """Type."""
        os.write(self._fd, data)

    def expect(self, text: bytes) -> None:
        """Read until a text is on the screen."""
        watch = Stopwatch()
        while text not in self.text:
            ready = select.select([self._fd], [], [], max(0.0, PATIENCE - watch()))[0]
            assert ready, f"{text!r} does not come: {self.text!r}"
            try:
                self.text += os.read(self._fd, 4096)
            except OSError:  # the other end is closed
                assert text in self.text, f"{text!r} never came: {self.text!r}"

    def close(self) -> None:
        """Hang up."""
        os.close(self._fd)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


def run_at_terminal(world: World, words: list[str]) -> None:
    """Run ``ctr`` to its end at a terminal: for a terminal of the container's own it wants one itself."""
    terminal = Terminal(world, ["ctr", *words])
    try:
        assert terminal.process.wait(PATIENCE) == 0, terminal.text
    finally:
        terminal.close()
