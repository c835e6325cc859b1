"""Input, output and terminals of tasks, by ``ctr`` and as its log URIs have it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab_support.stage import Setting, nothing_left, settings
from lab_support.terminal import Terminal, run_at_terminal
from lab_support.waiting import PATIENCE, until
from lab_support.world import COMBINATIONS

__all__ = ["nothing_left"]
#: Input and output do not depend on the snapshotter.
setting = settings(COMBINATIONS[:2])
_EOT = b"\x04"


@contextmanager
def _foreground(setting: Setting, ident: str, *args: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """``ctr run`` with pipes."""
    words = ["ctr", *setting.world.run_words(ident, *args, snapshotter=setting.snapshotter, **options)]  # type: ignore[arg-type]
    pipe = subprocess.PIPE
    with setting.world.lab.popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_input_reaches_the_guest(setting: Setting) -> None:
    ident = setting.new()
    with _foreground(setting, ident, "echo exit=7", flags=["--rm"]) as process:
        out, errors = process.communicate(b"first line\nsecond line\n" + _EOT, PATIENCE)
    assert process.returncode == 7, errors
    assert b"first line" in out
    assert b"second line" in out


def test_much_input_and_output(setting: Setting) -> None:
    """More than any pipe holds, and nothing is lost."""
    lines = [f"line {number:06} {'x' * 40}" for number in range(2000)]
    with _foreground(setting, setting.new(), "echo exit=0", flags=["--rm"]) as process:
        out, errors = process.communicate("".join(f"{line}\n" for line in lines).encode() + _EOT, PATIENCE)
    assert process.returncode == 0, errors
    assert [line for line in out.decode().splitlines() if line.startswith("line ")] == lines


def test_the_end_of_input_is_no_end_of_the_guest(setting: Setting) -> None:
    ident = setting.new()
    with _foreground(setting, ident, "wait") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        os.set_blocking(process.stdout.fileno(), False)
        output, said = process.stdout, bytearray()

        def has_said() -> bool:
            said.extend(output.read() or b"")
            return b"command line: wait" in said

        until(has_said, f"{ident} has said what it does")
        setting.world.ctr("tasks", "kill", "-s", "KILL", ident)
        assert process.wait(PATIENCE) == 137
    setting.world.remove(ident)


def test_a_terminal(setting: Setting) -> None:
    ident = setting.new()
    terminal = Terminal(
        setting.world,
        ["ctr", *setting.world.run_words(ident, "echo exit=4", snapshotter=setting.snapshotter, flags=["-t", "--rm"])],
    )
    try:
        terminal.expect(b"command line: echo exit=4")
        terminal.type(b"typed\r")
        terminal.expect(b"typed")
        terminal.type(_EOT)
        assert terminal.process.wait(PATIENCE) == 4
    finally:
        terminal.close()


def test_attaching_to_a_terminal_and_resizing(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    run_at_terminal(world, world.run_words(ident, "echo exit=8", snapshotter=setting.snapshotter, flags=["-d", "-t"]))
    terminal = Terminal(setting.world, ["ctr", "tasks", "attach", ident])
    try:
        until(lambda: world.status(ident) == "RUNNING", f"{ident} runs")
        world.api(lambda containerd: containerd.tasks.resize(ident, 100, 30))
        terminal.type(b"still there\r")
        terminal.expect(b"still there")
        terminal.type(_EOT)
        assert terminal.process.wait(PATIENCE) == 8
    finally:
        terminal.close()
    world.remove(ident)


def test_a_file(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "exit=0")
    world.await_status(ident, "STOPPED")
    world.await_output(ident, "command line: exit=0")
    world.remove(ident)
    assert "hello from a unikernel" in world.output(ident)


def test_a_logging_program(setting: Setting) -> None:
    """It gets the output as descriptors 3 and 4, closes 5 when it is ready, and the container's name in its environment."""
    world, ident = setting.world, setting.new()
    world.lab.put("/usr/local/bin/test-logger", _LOGGER, 0o755)
    target = f"/var/log/logger-{ident}"
    setting.detached(ident, "exit=2", flags=["--log-uri", f"binary:///usr/local/bin/test-logger?target={target}"])
    world.await_status(ident, "STOPPED")
    world.remove(ident)
    until(
        lambda: world.lab.run(["cat", target], check=False).stdout.endswith("end\n"),
        "the logging program has ended",
        10,
    )
    text = world.lab.get(target).decode()
    assert f"container {ident} of default" in text
    assert "command line: exit=2" in text


_LOGGER = b"""#!/bin/sh
# What it is asked to write to comes as arguments: the query's key, then its value.
target=$2
echo "container $CONTAINER_ID of $CONTAINER_NAMESPACE" > "$target"
exec 5>&-
cat <&3 >> "$target"
echo end >> "$target"
"""


def test_no_output_at_all(setting: Setting) -> None:
    ident = setting.new()
    setting.detached(ident, "exit=0", flags=["--null-io"])
    setting.world.await_status(ident, "STOPPED")
    setting.world.remove(ident)


def test_a_fifo_that_nobody_reads(setting: Setting) -> None:
    """The guest's end does not wait for a reader, nor does any question about it."""
    world, ident = setting.world, setting.new()
    with _foreground(setting, ident, "wait") as process:
        until(lambda: world.status(ident) == "RUNNING", f"{ident} runs")
        world.kill_program("ctr", ident)  # it is gone, and with it the reader
        process.wait(PATIENCE)
    assert world.status(ident) == "RUNNING"
    world.ctr("tasks", "kill", "-s", "KILL", ident)
    world.await_status(ident, "STOPPED")
    assert world.delete(ident) == 137
    world.remove(ident)


def test_a_reader_that_stands_still(setting: Setting) -> None:
    """A guest that writes more than anybody takes: it blocks, everybody else goes on, and what was read is in order."""
    world, ident, other = setting.world, setting.new(), setting.new()
    with _foreground(setting, ident, "echo exit=0", flags=["--rm"]) as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        line = b"y" * 79 + b"\n"
        written = 0

        def is_full() -> bool:
            nonlocal written
            try:
                written += os.write(process.stdin.fileno(), line) if process.stdin else 0
            except BlockingIOError:
                return True
            return written > 8 << 20

        until(is_full, "no more input is taken", pause=0)
        assert setting.run(other, "exit=0", flags=["--rm"]).returncode == 0
        assert world.status(ident) == "RUNNING"
        world.ctr("tasks", "kill", "-s", "KILL", ident)
        os.set_blocking(process.stdin.fileno(), True)
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.replace(b"\r", b"").rpartition(b"\n")[0].count(line.strip()) > 10
