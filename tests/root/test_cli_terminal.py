"""The foreground on a real terminal: Ctrl-C, keys, the terminal's own state."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest

from cli_world import PROGRAM, Cli, read_until, sample, world


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with world(str(tmp_path_factory.mktemp("terminal")), "hello") as found:
        yield found


@pytest.fixture
def cli(shared: Cli) -> Iterator[Cli]:
    yield shared
    shared.clear()


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.master, self._slave = os.openpty()
        self.before = termios.tcgetattr(self.master)
        self.pid = os.fork()
        if not self.pid:
            os.close(self.master)
            os.login_tty(self._slave)
            os.execve(PROGRAM[0], [*PROGRAM, *words], cli.environment)

    def local_modes(self) -> int:
        """The terminal's local modes now (termios(3), c_lflag)."""
        modes = termios.tcgetattr(self.master)[3]
        assert isinstance(modes, int)
        return modes

    def end(self) -> int:
        """Wait for the command's end; its exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert termios.tcgetattr(self.master) == self.before
        os.close(self._slave)
        os.close(self.master)
        return code


def test_control_c_stops_the_guest_and_the_terminal_is_as_before(cli: Cli) -> None:
    terminal = Terminal(cli, "run", "--rm", "--name", "tty", "hello", "wait")
    read_until(terminal.master, b"disk: ")
    assert not terminal.local_modes() & (termios.ECHO | termios.ICANON)
    assert terminal.local_modes() & termios.ISIG
    os.write(terminal.master, b"\x03")
    read_until(terminal.master, b"unikeel: stopping tty; once more kills it")
    assert terminal.end() == 137


def test_keys_reach_the_guest_one_by_one(cli: Cli) -> None:
    terminal = Terminal(cli, "run", "--rm", "hello", "echo", "exit=6")
    read_until(terminal.master, b"disk: ")
    os.write(terminal.master, b"typed\n")
    read_until(terminal.master, b"typed")
    os.write(terminal.master, b"\x04")
    assert terminal.end() == 6


def test_a_failed_start_leaves_the_terminal_alone(cli: Cli) -> None:
    terminal = Terminal(cli, "run", "nothing-like-that")
    read_until(terminal.master, b"unikeel: there is no image nothing-like-that")
    assert terminal.end() == 66


def test_long_work_shows_a_bar_on_a_terminal_and_none_in_a_pipe(cli: Cli) -> None:
    done = cli.run("image", "load", sample("bulky"), "--name", "quiet")
    assert (done.stdout, done.stderr) == (b"quiet:latest\n", b"")
    cli.good("image", "rm", "quiet")
    terminal = Terminal(cli, "image", "load", sample("bulky"), "--name", "shown")
    assert b"unpacking" in read_until(terminal.master, b"shown:latest")
    assert terminal.end() == 0
