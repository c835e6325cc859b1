"""A container's life with real sandboxes and monitors: start, end, restart, logs, and what can go wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

import unikeel
from engine_leftovers import Baseline, host_leftovers, wait_keeper_gone
from engine_stages import PATIENCE, STRATEGIES, Stage, options, sample, type_end
from unikeel.engine.removing import finish_removal
from unikeel.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable

#: qemu.qmp leaves sockets of conversations that failed to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_STATE = unikeel.ContainerState


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(str(tmp_path_factory.mktemp("life")))


@pytest.fixture(scope="module")
def baseline(stage: Stage) -> Baseline:
    return stage.warm_up()


@pytest.fixture
def engine(stage: Stage, baseline: Baseline) -> Iterator[unikeel.Engine]:
    """An engine; afterwards nothing may be left."""
    stage.notices.clear()
    with stage.engine() as engine:
        yield engine
        idents = []
        for container in engine.containers(everything=True):
            idents.append(container.id)
            container.remove(force=True)
    assert baseline.leftovers(idents) == []


def output(container: unikeel.Container) -> str:
    return b"".join(container.logs()).decode()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_and_its_restarts(engine: unikeel.Engine, stage: Stage, strategy: str) -> None:
    container = engine.create("hello", options(boot_files=strategy, args=("hello", "exit=42")))
    assert str(container.state.value) == "created"
    for run in (1, 2):
        container.start(ready="first-output", seconds=PATIENCE)
        assert container.wait(PATIENCE) == 42
        assert (container.state, container.exit_code, container.record.runs) == (_STATE.EXITED, 42, run)
        assert container.record.strategy == strategy
        assert output(container).count("hello from a unikernel") == run
    span = container.timeline().find("boot-files")
    assert span is not None
    assert (span.attributes["strategy"], span.attributes["hit"]) == (strategy, True)
    assert stage.notices == []


def test_states_and_wrong_steps(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options(name="steps"))
    with pytest.raises(FailedPrecondition, match="created"):
        container.wait(1)
    with pytest.raises(FailedPrecondition, match="not running"):
        container.kill()
    with pytest.raises(AlreadyExists):
        engine.create("hello", options(name="steps"))
    container.start(ready="first-output")
    with pytest.raises(FailedPrecondition, match="running"):
        container.start()
    with pytest.raises(FailedPrecondition, match="running"):
        container.remove()
    with pytest.raises(DeadlineExceeded):
        container.wait(0.2)
    assert container.stop(1) == 137
    with pytest.raises(FailedPrecondition):
        container.stop(1)
    container.remove()
    with pytest.raises(NotFound):
        _ = container.state


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signals(engine: unikeel.Engine, number: int, code: int) -> None:
    container = engine.create("hello", options())
    container.start(ready="first-output")
    container.kill(number)
    assert container.wait(PATIENCE) == code
    with pytest.raises(InvalidArgument):
        container.kill(9999)


def test_a_guest_that_ended_is_not_said_to_have_been_stopped(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options(args=("exit=7",)))
    container.start()
    with stopped_late(container):
        pass
    assert container.wait(PATIENCE) == 7


class stopped_late:  # noqa: N801 - reads as a function
    """Stop a container whose guest ends by itself, before anybody has taken note of that."""

    def __init__(self, container: unikeel.Container) -> None:
        self.container = container

    def __enter__(self) -> None:
        record = self.container.record
        fd = os.pidfd_open(record.pid) if os.path.exists(f"/proc/{record.pid}") else -1
        if fd >= 0:
            import select

            select.select([fd], [], [], PATIENCE)
            os.close(fd)
        try:
            self.container.stop(0)
        except FailedPrecondition:
            return

    def __exit__(self, *_: object) -> None:
        return


def test_several_wait(engine: unikeel.Engine, stage: Stage) -> None:
    container = engine.create("hello", options(name="awaited"))
    container.start(ready="first-output")
    waiters = [stage.command("say=waiting", "wait=awaited") for _ in range(4)]
    for waiter in waiters:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waiting\n"
    container.kill(signal.SIGTERM)
    assert [waiter.communicate(timeout=PATIENCE)[0] for waiter in waiters] == ["exit 143\n"] * 4
    assert container.wait(PATIENCE) == 143


def test_removed_by_force(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options())
    container.start()
    container.remove(force=True)
    with pytest.raises(NotFound):
        container.refresh()
    # Nor in the place that a hybrid host's keeper gives crun instead of the cgroup2 mount.
    keeper = engine.services.keeper.ask({"op": "hello"})["pid"]
    assert f"unikeel-{container.id}" not in os.listdir(f"/proc/{keeper}/root/sys/fs/cgroup/")
    stand_in = f"/proc/{keeper}/root/sys/fs/cgroup/unified"
    assert not os.path.isdir(stand_in) or f"unikeel-{container.id}" not in os.listdir(stand_in)


def test_two_remove_at_once(engine: unikeel.Engine, stage: Stage) -> None:
    for _ in range(3):
        engine.create("hello", options(name="twice"))
        children = [stage.command("remove=twice") for _ in range(3)]
        lines = [child.communicate(timeout=PATIENCE)[0] for child in children]
        assert sum(child.returncode == 0 for child in children) >= 1, lines
        assert engine.containers(everything=True) == []


def test_two_start_at_once(engine: unikeel.Engine, stage: Stage) -> None:
    container = engine.create("hello", options(name="raced"))
    children = [stage.command("start=raced") for _ in range(3)]
    lines = [child.communicate(timeout=PATIENCE)[0] for child in children]
    assert [child.returncode for child in children].count(0) == 1, lines
    assert container.refresh().state is _STATE.RUNNING


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_detached_container_removes_itself(stage: Stage, baseline: Baseline, strategy: str) -> None:
    """Whether its guest ends before or after the command that started it; with ``copy`` a mount of the host goes, too."""
    stage.run("rm=1", f"strategy={strategy}", "args=exit=0", "create=fleeting", "start=fleeting")
    assert baseline.leftovers(stage.idents) == []
    stage.run("rm=1", f"strategy={strategy}", "args=echo,exit=0", "create=fleeting", "ready=fleeting")
    type_end(stage, "fleeting")
    assert baseline.leftovers(stage.idents) == []


def test_created_to_be_removed_after_its_run(engine: unikeel.Engine, stage: Stage) -> None:
    stage.run("rm=1", "args=exit=0", "create=later")
    stage.run("open")
    assert [container.name for container in engine.containers(everything=True)] == ["later"]
    lines = stage.run("start=later", "wait=later", "remove=later")
    assert "exit 0" in lines


def test_without_a_sandbox(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options(sandbox=False))
    container.start(ready="first-output")
    assert os.readlink(f"/proc/{container.record.pid}/ns/net") == os.readlink("/proc/self/ns/net")
    assert container.stop(0) == 137
    again = engine.create("hello", options(sandbox=False, args=("exit=5",)))
    again.start()
    assert again.wait(PATIENCE) == 5


def test_following(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options(args=("echo", "exit=1")))
    container.start(ready="first-output")
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(container.follow()), daemon=True)
    with engine.services.keeper.connect() as connection:
        _, fds = connection.call_with_fds({"op": "input", "id": container.id})
        reader.start()
        os.write(fds[0], b"one\ntwo\n\x04")
        os.close(fds[0])
    assert container.wait(PATIENCE) == 1
    reader.join(PATIENCE)
    assert "one" in output(container)
    assert "two" in output(container)


def test_the_log_turns_over(stage: Stage, baseline: Baseline, tmp_path: os.PathLike[str]) -> None:
    del baseline
    small = os.path.join(tmp_path, "small.toml")
    with open(stage.config, encoding="utf-8") as origin, open(small, "w", encoding="utf-8") as target:
        target.write(origin.read() + "[console]\nlog_size = 2048\n")
    with unikeel.Engine(stage.root, config=small) as engine:
        container = engine.create("hello", options(args=("echo", "exit=0")))
        container.start(ready="first-output")
        with engine.services.keeper.connect() as connection:
            _, fds = connection.call_with_fds({"op": "input", "id": container.id})
            connection.call({"op": "watch", "id": container.id})
            for number in range(200):
                line = b"line %04d" % number
                os.write(fds[0], line + b"\n")
                while line not in b"".join(container.logs()):
                    assert connection.event(PATIENCE) is not None
            os.write(fds[0], b"\x04")
            os.close(fds[0])
        assert container.wait(PATIENCE) == 0
        text = output(container)
        sizes = [os.path.getsize(container.console_log + end) for end in ("", ".1")]
        container.remove()
    assert "line 0199" in text
    assert "line 0000" not in text
    assert sum(sizes) <= 2048


@pytest.mark.parametrize("criterion", ["console:unikernel\n", "console:command line: .*wait", "first-output"])
def test_ready(engine: unikeel.Engine, criterion: str) -> None:
    container = engine.create("hello", options())
    container.start(ready=criterion, seconds=PATIENCE)
    assert container.timeline().find("ready") is not None


def test_not_ready(engine: unikeel.Engine) -> None:
    container = engine.create("hello", options())
    with pytest.raises(DeadlineExceeded, match="not ready in time"):
        container.start(ready="console:never said", seconds=3)
    assert container.refresh().state is _STATE.RUNNING
    container.stop(0)
    ended = engine.create("hello", options(args=("exit=3",)))
    with pytest.raises(FailedPrecondition, match="ended before it was ready"):
        ended.start(ready="console:never said", seconds=PATIENCE)
    assert ended.wait(PATIENCE) == 3
    for wrong in ("console:(", "port:0", "port:http", "soon"):
        with pytest.raises(InvalidArgument):
            container.start(ready=wrong)
    with pytest.raises(InvalidArgument, match="not published"):
        container.start(ready="port:80")


def test_a_port_in_use(engine: unikeel.Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        container = engine.create("hello", options(network="user", ports=(unikeel.Port("127.0.0.1", port, 80, "tcp"),)))
        with pytest.raises(AlreadyExists, match=f"port {port}"):
            container.start()
    assert container.state is _STATE.CREATED
    container.start(ready="first-output")
    assert container.stop(0) == 137


def test_a_port_taken_while_starting(engine: unikeel.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unikeel.network.ports.check_free", lambda _ports: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        container = engine.create("hello", options(network="user", ports=(unikeel.Port("127.0.0.1", port, 80, "tcp"),)))
        with pytest.raises(Unavailable, match="network of"):
            container.start()
    assert container.state is _STATE.CREATED


def test_a_network_helper_is_confined(engine: unikeel.Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    container = engine.create("hello", options(network="user", ports=(unikeel.Port("127.0.0.1", port, 80, "tcp"),)))
    container.start(ready="first-output")
    pid = engine.services.keeper.ask({"op": "helper", "id": container.id})["pid"]
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        helper = dict(line.split(":", 1) for line in file)
    assert set(helper["Uid"].split()) == {str(engine.services.uid(container.record.slot))}
    assert helper["NoNewPrivs"].strip() == "1"
    assert helper["Seccomp"].strip() == "2"
    for space in ("mnt", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}")
    assert os.listdir(f"/proc/{pid}/root/") == []
    with open(f"/proc/{container.record.pid}/net/dev", encoding="ascii") as file:
        assert [line.split(":")[0].strip() for line in file.readlines()[2:]] in (["lo"], [])
    container.stop(0)


def test_nginx(tmp_path: os.PathLike[str]) -> None:
    stage = Stage(str(tmp_path))
    with stage.engine() as engine:
        engine.load(sample("nginx"), name="nginx")
        _serve_a_page(engine)
    wait_keeper_gone(stage.root)
    assert host_leftovers(stage.root, stage.idents) == []


def _serve_a_page(engine: unikeel.Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    container = engine.create("nginx", unikeel.Options(ports=(unikeel.Port("127.0.0.1", port, 80, "tcp"),)))
    container.start(ready="port:80", seconds=PATIENCE)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
        assert b"says hello" in answer.read()
    begin = time.monotonic()
    assert container.stop(60) == 0
    assert time.monotonic() - begin < 60
    container.start(ready="port:80", seconds=PATIENCE)
    assert container.stop(60) == 0
    container.remove()


def _with_config(stage: Stage, directory: str, more: str) -> unikeel.Engine:
    path = os.path.join(directory, "more.toml")
    with open(stage.config, encoding="utf-8") as origin, open(path, "w", encoding="utf-8") as target:
        target.write(origin.read() + more)
    return unikeel.Engine(stage.root, config=path, notice=stage.notices.append)


def test_no_monitor(stage: Stage, baseline: Baseline, tmp_path: os.PathLike[str]) -> None:
    with _with_config(stage, str(tmp_path), '[monitor]\nqemu_path = "/nonexistent/qemu"\n') as engine:
        container = engine.create("hello", options())
        with pytest.raises(Unavailable, match="/nonexistent/qemu"):
            container.start()
        assert container.state is _STATE.CREATED
        container.remove()
    assert baseline.leftovers([container.id]) == []


def test_a_monitor_that_fails(
    stage: Stage, baseline: Baseline, tmp_path: os.PathLike[str], engine: unikeel.Engine
) -> None:
    """One that refuses its command line: the start fails with its words. One that fails later: 125."""
    source, program = os.path.join(tmp_path, "qemu.c"), os.path.join(tmp_path, "qemu")
    with open(source, "w", encoding="utf-8") as file:
        file.write(_FAILING_QEMU)
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    with _with_config(stage, str(tmp_path), f'[monitor]\nqemu_path = "{program}"\n') as other:
        container = other.create("hello", options(args=("refuse",)))
        with pytest.raises(FailedPrecondition, match="I cannot do that"):
            container.start(seconds=PATIENCE)
        assert container.state is _STATE.CREATED
        later = other.create("hello", options(args=("later",)))
        later.start(seconds=PATIENCE)
        assert later.wait(PATIENCE) == 125
        assert later.record.reason == "the monitor failed: it broke"
    del engine, baseline


_FAILING_QEMU = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void answer(int fd, const char *text) { if (write(fd, text, strlen(text)) < 0) return; }

int main(int argc, char **argv)
{
    int qmp = -1, later = 0;
    char line[4096];
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--version")) { puts("QEMU emulator version 7.2.22"); return 0; }
        char *at = strstr(argv[i], "id=qmp,fd=");
        if (at) qmp = atoi(at + 10);
        if (strstr(argv[i], "later")) later = 1;
    }
    if (!later) { fprintf(stderr, "qemu-system-x86_64: error: I cannot do that\n"); return 1; }
    int fd = accept(qmp, 0, 0);
    answer(fd, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": []}}\r\n");
    for (ssize_t n; (n = read(fd, line, sizeof line - 1)) > 0;) { /* one request at a time comes, without a line's end */
        line[n] = 0;
        char *id = strstr(line, "\"id\":"), reply[4600], ident[300] = "";
        int length = id ? strcspn(id + 5, ",}\r\n") : 0;
        if (id) snprintf(ident, sizeof ident, ", \"id\": %.*s", length, id + 5);
        int status = strstr(line, "query-status") != 0;
        snprintf(reply, sizeof reply, "{\"return\": %s%s}\r\n", status ? "{\"status\": \"running\", \"running\": true, \"singlestep\": false}" : "{}", ident);
        answer(fd, reply);
    }
    fprintf(stderr, "qemu-system-x86_64: error: it broke\n");
    return 1;
}
"""


def test_no_runtime(engine: unikeel.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setattr("unikeel.kernel.paths.PROGRAM_DIRECTORIES", (str(tmp_path),))
    container = engine.create("hello", options())
    with pytest.raises(Unavailable, match="no OCI runtime"):
        container.start()
    assert container.state is _STATE.CREATED


def test_runc(stage: Stage, baseline: Baseline, tmp_path: os.PathLike[str]) -> None:
    with _with_config(stage, str(tmp_path), '[sandbox]\nruntime = "runc"\n') as engine:
        container = engine.create("hello", options(args=("exit=9",)))
        for _ in range(2):
            container.start()
            assert container.wait(PATIENCE) == 9
        container.start(ready="first-output")
        assert engine.services.sandboxes.runtime.name == "runc"
        container.stop(0) if container.refresh().state is _STATE.RUNNING else None
        container.remove(force=True)
    assert baseline.leftovers([container.id]) == []


def test_runc_where_crun_cannot_run(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out by a trial, said once, remembered for the next command."""
    programs = os.path.join(tmp_path, "bin")
    os.mkdir(programs)
    with open(os.path.join(programs, "crun"), "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\necho tried >> {tmp_path}/tried\necho 'this host is not to my liking' >&2\nexit 1\n")
    os.chmod(os.path.join(programs, "crun"), 0o755)
    os.symlink("/usr/sbin/runc", os.path.join(programs, "runc"))
    monkeypatch.setattr("unikeel.kernel.paths.PROGRAM_DIRECTORIES", (programs,))
    stage = Stage(str(tmp_path))
    for _ in range(2):
        with stage.engine() as engine:
            container = engine.create("hello", options(args=("exit=4",)))
            container.start()
            assert container.wait(PATIENCE) == 4
            container.remove()
        told = "crun cannot run here (this host is not to my liking): runc confines the monitors"
        assert stage.notices == [told]
    with open(os.path.join(tmp_path, "tried"), encoding="utf-8") as file:
        assert file.read() == "tried\n"
    wait_keeper_gone(stage.root)
    assert host_leftovers(stage.root, [container.id]) == []


def test_a_forced_removal_waits_for_the_one_that_is_under_way(engine: unikeel.Engine) -> None:
    services = engine.services
    container = engine.create("hello", options())
    record = container.record
    failed: list[BaseException] = []

    def force() -> None:
        try:
            container.remove(force=True)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    record = services.containers.move(record, _STATE.REMOVING, owner=services.owner.token)
    with pytest.raises(FailedPrecondition):
        container.remove()
    other = threading.Thread(target=force)
    other.start()
    finish_removal(services, record)
    other.join(PATIENCE)
    assert failed == []
    assert not other.is_alive()
    with pytest.raises(NotFound):
        services.containers.get(container.id)
