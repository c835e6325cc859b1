"""A monitor whose standard streams are its guest's console: two fifos, which outlive the keeper."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine_leftovers import limit, wait_keeper_gone
from keeper_world import until
from unikeel.errors import Internal
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.keeper.console import INPUT, OUTPUT
from unikeel.keeper.wire import Message
from unikeel.records.owners import start_time
from unikeel.sandbox.sockets import NAMES, console_path, fifo


class Stage:
    """A shell script as a monitor."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = os.path.join(root, "c")
        os.mkdir(self.directory)
        self.client = KeeperClient(KeeperSettings(os.path.join(root, "run"), idle=0.1, view_idle=0.1))
        self.pid = 0

    def message(self) -> Message:
        return {
            "id": "c",
            "directory": self.directory,
            "console": console_path(self.directory),
            "log_limit": 1 << 20,
            "reaper": [],
            "holds": [],
            "stdio": [],
        }

    def launch(self, script: str) -> None:
        with ExitStack() as stack:
            streams = [stack.enter_context(fifo(self.directory, name)).fileno() for name in (INPUT, OUTPUT)]
            extra = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, extra)
            order: Message = {
                **self.message(),
                "op": "launch",
                "argv": ["/bin/sh", "-c", script],
                "helper": None,
                "pid_file": "",
                "streams": True,
            }
            answer = self.client.connection().call(order, (extra, *streams))
        assert isinstance(answer["pid"], int)
        self.pid = answer["pid"]

    def type(self, text: str) -> None:
        with self.client.connect() as connection:
            answer, fds = connection.call_with_fds({"op": "input", "id": "c"})
        assert answer["ok"] is True
        os.write(fds[0], text.encode())
        os.close(fds[0])

    def printed(self) -> str:
        with open(os.path.join(self.directory, "console.log"), encoding="utf-8") as file:
            return file.read()

    def until_printed(self, text: str) -> None:
        until(lambda: text in self.printed(), f"{text!r} was not printed")

    def until_ended(self) -> None:
        until(lambda: os.path.exists(os.path.join(self.directory, "exit.json")), "the end was not told")


@pytest.fixture
def stage(tmp_path: os.PathLike[str]) -> Iterator[Stage]:
    os.mkdir(os.path.join(str(tmp_path), "run"))
    with limit(120, "the test"):
        stage = Stage(str(tmp_path))
        yield stage
        stage.client.close()
        wait_keeper_gone(str(tmp_path))


def test_what_is_printed_comes_to_the_log_and_what_is_typed_to_the_guest(stage: Stage) -> None:
    stage.launch("echo first; read line; echo got $line; echo complaint >&2; ls /proc/self/fd | tr '\\n' ' '")
    stage.until_printed("first\n")
    stage.type("some words\n")
    stage.until_ended()
    assert stage.printed().startswith("first\ngot some words\n0 1 2 3 ")
    with open(os.path.join(stage.directory, "monitor.log"), encoding="utf-8") as file:
        assert file.read() == "complaint\n"


def test_a_keeper_that_is_killed_breaks_no_pipe_and_the_next_one_goes_on(stage: Stage) -> None:
    stage.launch("echo before; read line; echo while; read line; echo after $line")
    stage.until_printed("before\n")
    keeper = stage.client.ask({"op": "hello"})["pid"]
    assert isinstance(keeper, int)
    pid, started = stage.pid, start_time(stage.pid)
    os.kill(keeper, signal.SIGKILL)
    with open(os.path.join(stage.directory, INPUT), "w", encoding="ascii") as file:
        file.write("go on\n")  # it prints while there is no keeper
    stage.client.ask({**stage.message(), "op": "adopt", "pid": pid, "start_time": started})
    stage.until_printed("while\n")
    stage.type("all\n")
    stage.until_printed("after all\n")
    stage.until_ended()
    assert stage.printed() == "before\nwhile\nafter all\n"


def test_what_is_no_fifo_where_one_should_be_is_refused(stage: Stage) -> None:
    with fifo(stage.directory, OUTPUT), open(os.path.join(stage.directory, INPUT), "w", encoding="ascii"):
        order: Message = {**stage.message(), "op": "launch", "argv": ["/bin/true"], "helper": None, "pid_file": ""}
        with pytest.raises(Internal, match="is no fifo"):
            stage.client.connection().call(order)


def test_which_names_a_directory_can_have(tmp_path: os.PathLike[str]) -> None:
    directory = str(tmp_path)
    assert console_path(directory).endswith("/console.sock")
    with fifo(directory, OUTPUT) as first, fifo(directory, OUTPUT) as second:
        assert os.fstat(first.fileno()).st_ino != os.fstat(second.fileno()).st_ino
    assert console_path(directory).endswith(f"/{OUTPUT}")
    assert {OUTPUT, INPUT, "qmp.sock", "console.sock", "api.sock"} == set(NAMES)
    assert oct(os.stat(os.path.join(directory, OUTPUT)).st_mode & 0o777) == "0o600"
