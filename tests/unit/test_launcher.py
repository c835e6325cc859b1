"""The launcher: what containerd executes, and what it gets to see."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from launcher_world import LIMIT, Asked, World, answer, frame, refusal
from unikeel.bench import launcher as bench
from unikeel.containerd.wire.launcher_pb2 import LaunchResponse, RelayRequest
from unikeel.containerd.wire.task_pb2 import DeleteResponse
from unikeel.containerd.wire.ttrpc_pb2 import Response
from unikeel.containerd.wire.types_pb2 import RuntimeInfo
from unikeel.errors import NotFound
from unikeel.shim import launcher
from unikeel.shim.launcher import building
from unikeel.version import VERSION

ADDRESS = b"unix:///run/unikeel/daemon/c/0123456789abcdef.sock"
GOOD = answer(output=ADDRESS)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The launcher as it is shipped, and one that checks its every access."""
    directory = str(tmp_path_factory.mktemp("launcher"))
    paths = {kind: os.path.join(directory, kind) for kind in ("static", "sanitized")}
    building.build(paths["static"])
    building.build(paths["sanitized"], building.SANITIZED)
    return paths


@pytest.fixture(params=["static", "sanitized"])
def world(programs: dict[str, str], tmp_path: object, request: pytest.FixtureRequest) -> World:
    return World(str(tmp_path), programs[request.param])


@pytest.fixture
def shipped(programs: dict[str, str], tmp_path: object) -> World:
    return World(str(tmp_path), programs["static"])


def fails(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one sentence of a failed ``start``, which is on standard output."""
    assert done.returncode == 1, done
    assert done.stderr == b"", done
    assert done.stdout.endswith(b"\n")
    assert done.stdout.count(b"\n") == 1
    return done.stdout.decode()


def silent(release: threading.Event) -> None:
    """No answer, until the test is over."""
    release.wait(LIMIT)


class TestArguments:
    @pytest.mark.parametrize(
        ("words", "bundle"),
        [
            (("-namespace", "ns", "-address", "/a.sock", "-publish-binary", "/bin/containerd", "-id", "c1", "start"), ""),
            (("-namespace", "ns", "-address", "/a.sock", "-publish-binary", "/b", "-id", "c1", "-debug", "start"), ""),
            (("-id=c1", "--namespace=ns", "-debug=true", "--address", "/a.sock", "start"), ""),
            (("-debug", "-bundle", "/some/bundle", "-id", "c1", "-address", "/a.sock", "-namespace", "ns", "start"), "/some/bundle"),
            (("-namespace", "ns", "-new-flag", "-id", "c1", "-other", "value", "-address", "/a.sock", "-socket", "start", "start"), ""),
            (("-namespace", "ns", "-address", "/a.sock", "-id", "delete", "start", "-id", "c1"), ""),
        ],
    )  # fmt: skip
    def test_every_form_arrives(self, world: World, words: tuple[str, ...], bundle: str) -> None:
        with world.daemon(lambda _: GOOD) as daemon:
            done = world.run(*words, environment={"TTRPC_ADDRESS": "/t.sock", "MAX_SHIM_VERSION": "2"})
        assert (done.returncode, done.stdout, done.stderr) == (0, ADDRESS, b"")
        (asked,) = daemon.asked
        assert (asked.stream, asked.method) == (1, "Start")
        assert 0 < asked.timeout <= 60 * 10**9
        launch = asked.launch
        assert tuple(launch.args) == words
        assert (launch.namespace, launch.id, launch.grpc_address) == ("ns", "c1", "/a.sock")
        assert (launch.ttrpc_address, launch.max_version, launch.input) == ("/t.sock", 2, b"")
        assert (launch.cwd, launch.bundle) == (world.bundle, bundle or world.bundle)

    def test_an_empty_address_is_cri_o_s_and_the_environment_fills_in(self, shipped: World) -> None:
        with shipped.daemon(lambda _: GOOD) as daemon:
            shipped.run("-namespace", "default", "-address", "", "-publish-binary", "/crio", "-id", "c1", "start")
            shipped.run("-id", "c1", "start", environment={"NAMESPACE": "ns", "GRPC_ADDRESS": "/g.sock"})
        assert [(asked.launch.namespace, asked.launch.grpc_address) for asked in daemon.asked] == [
            ("default", ""),
            ("ns", "/g.sock"),
        ]

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            ((), "nothing to do"),
            (("-namespace", "ns", "-id", "c1"), "nothing to do"),
            (("-namespace",), "nothing to do"),
            (("-", "--", "-=", "--="), "nothing to do"),
            (("-namespace", "ns", "start"), "start needs -id"),
            (("-id", "c1", "start"), "start needs -namespace"),
        ],
    )
    def test_what_is_missing_is_named(self, world: World, words: tuple[str, ...], part: str) -> None:
        assert part in fails(world.run(*words))

    def test_info_and_version(self, world: World) -> None:
        done = world.run("-info", stdin=b"\x0a\x03xyz")
        info = RuntimeInfo.FromString(done.stdout)
        assert (done.returncode, info.name, info.version.version) == (0, "io.containerd.unikeel.v2", VERSION)
        assert VERSION.encode() in world.run("-v").stdout


class TestInput:
    @pytest.mark.parametrize("size", [0, 1, 70_000, 4 * 1024 * 1024 - 2000])
    def test_it_arrives_whole(self, world: World, size: int) -> None:
        given = os.urandom(size)
        with world.daemon(lambda _: GOOD) as daemon:
            assert world.start(given).stdout == ADDRESS
        assert daemon.asked[0].launch.input == given

    @pytest.mark.parametrize("size", [4 * 1024 * 1024 - 10, 5 * 1024 * 1024])
    def test_too_much_is_refused(self, world: World, size: int) -> None:
        with world.daemon(lambda _: GOOD):
            assert "limit of 4 MiB" in fails(world.start(bytes(size)))

    def test_closed_streams_are_no_trouble(self, world: World) -> None:
        with world.daemon(lambda _: GOOD) as daemon:
            line = f'exec "{world.program}" -namespace ns -id c1 start <&- 2>&-'
            done = subprocess.run(
                ["/bin/sh", "-c", line], env=world.environment, cwd=world.bundle, stdout=subprocess.PIPE
            )
        assert (done.stdout, daemon.asked[0].launch.input) == (ADDRESS, b"")


class TestAnswers:
    def test_an_error_is_its_sentence_and_its_code(self, world: World) -> None:
        with world.daemon(lambda _: answer(exit=69, error="no such\timage\x1b[2J\n")):
            done = world.start()
        assert (done.returncode, done.stdout, done.stderr) == (69, b"no such image [2J\n", b"")

    @pytest.mark.parametrize(("exit_code", "seen"), [(255, 255), (256, 1), (2**32 - 1, 1)])
    def test_no_failure_becomes_a_success(self, world: World, exit_code: int, seen: int) -> None:
        with world.daemon(lambda _: answer(exit=exit_code)):
            assert world.start().returncode == seen

    def test_a_refused_call(self, world: World) -> None:
        with world.daemon(lambda _: refusal(13, "two daemons died over this")):
            assert fails(world.start()) == "containerd-shim-unikeel-v2: two daemons died over this\n"

    def test_who_was_just_ending_is_asked_once_more(self, world: World) -> None:
        """The keeper goes when it is idle, and may do so between the connection and the question."""
        with world.daemon(lambda _: GOOD if len(daemon.asked) > 1 else None) as daemon:
            done = world.start()
            assert done.returncode == 0, done
            assert [asked.method for asked in daemon.asked] == ["Start", "Start"]

    def test_but_only_once(self, world: World) -> None:
        with world.daemon(lambda _: None) as daemon:
            fails(world.start())
            assert len(daemon.asked) == 2

    @pytest.mark.parametrize(
        ("reply", "part"),
        [
            (None, "closed the connection"),
            (b"", "closed the connection"),
            (b"\0\0\0", "closed the connection"),
            (GOOD[:-1], "closed the connection"),
            (frame(b"", size=0xFFFFFFFF), "too large"),
            (frame(b"", size=(4 << 20) + 1), "too large"),
            (frame(b"", size=4 << 20), "closed the connection"),
            (frame(b"x", stream=3), "malformed"),
            (frame(b"x", kind=1), "malformed"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "too large"),
            (frame(b"\xff" * 40), "malformed"),
            (frame(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "malformed"),
            (frame(b"\x12\x05abc"), "malformed"),
            (frame(b"\x0a\x02\x12\x7f"), "malformed"),
            (frame(b"\x00\x00"), "malformed"),
            (frame(b"\x0b\x0c"), "malformed"),
            (frame(Response(payload=b"\x22\x10/bin").SerializeToString()), "malformed"),
            (answer(exec="a\0b"), "no valid name"),
            (answer(exec="../up"), "neither on the PATH"),
            (answer(exec="/" + "x" * 5000), "no valid name"),
            (answer(exec="/no/such/program"), "cannot be executed"),
        ],
    )
    def test_a_hostile_answer_is_a_sentence(self, world: World, reply: bytes | None, part: str) -> None:
        with world.daemon(lambda _: reply):
            assert part in fails(world.start())

    def test_no_garbage_is_a_crash(self, programs: dict[str, str], tmp_path: object) -> None:
        world = World(str(tmp_path), programs["sanitized"])
        good = Response(
            payload=LaunchResponse(output=b"out", error="e", exec="").SerializeToString()
        ).SerializeToString()
        cases: Iterator[int] = iter(range(60))

        def garbage(_: Asked) -> bytes:
            number = next(cases)
            body = bytearray(good if number % 2 else os.urandom(number))
            if number % 2:
                body[(number // 2) % len(body)] ^= 1 << number % 8
            return frame(bytes(body))

        with world.daemon(garbage):
            for _ in range(60):
                done = world.start()
                assert done.returncode in range(256)
                assert b"Sanitizer" not in done.stderr, done
                assert b"runtime error" not in done.stderr, done

    def test_an_answer_that_does_not_come(self, shipped: World) -> None:
        release = threading.Event()
        with shipped.daemon(lambda _: silent(release)):
            assert "did not answer Start in time" in fails(shipped.start(UNIKEEL_START_SECONDS="0.2"))
            release.set()


class TestStartingTheDaemon:
    def command(self, world: World, text: str) -> dict[str, str]:
        return {"UNIKEEL_COMMAND": world.script("unikeel", f'echo "$@" >>{world.directory}/calls\n{text}')}

    def calls(self, world: World) -> list[str]:
        with open(os.path.join(world.directory, "calls"), encoding="utf-8") as file:
            return file.read().splitlines()

    def test_a_failure_is_told_in_its_words(self, world: World) -> None:
        command = self.command(world, "echo 'unikeel: the state root is read-only' >&2; exit 77")
        assert "could not be started: unikeel: the state root is read-only" in fails(world.start(**command))
        assert self.calls(world) == ["daemon --detach"]

    def test_a_silent_failure_too(self, world: World) -> None:
        assert "without a word" in fails(world.start(**self.command(world, "exit 3")))

    def test_one_that_never_listens(self, shipped: World) -> None:
        command = self.command(shipped, "exit 0")
        assert "nobody listens at" in fails(shipped.start(**command, UNIKEEL_DAEMON_SECONDS="0.3"))

    def test_no_command_at_all(self, world: World) -> None:
        assert "not on the PATH" in fails(world.start(UNIKEEL_COMMAND=""))
        assert "cannot be executed" in fails(world.start())

    def test_many_launchers_start_one(self, shipped: World) -> None:
        """The socket's directory does not exist yet, either; and the daemon holds none of our streams."""
        shipped.environment["UNIKEEL_LAUNCH_SOCKET"] = shipped.socket = os.path.join(
            shipped.directory, "new", "daemon", "launch.sock"
        )
        command = self.command(shipped, f"touch {shipped.directory}/go; sleep 30 & exit 0")
        results: list[subprocess.CompletedProcess[bytes]] = []
        threads = [threading.Thread(target=lambda: results.append(shipped.start(**command))) for _ in range(8)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        while not os.path.exists(os.path.join(shipped.directory, "go")):
            time.sleep(0.005)
        time.sleep(0.1)
        with shipped.daemon(lambda _: GOOD):
            for thread in threads:
                thread.join()
        assert [done.stdout for done in results] == [ADDRESS] * 8
        assert self.calls(shipped) == ["daemon --detach"]
        assert time.monotonic() - begin < 10
        assert os.stat(os.path.dirname(shipped.socket)).st_mode & 0o777 == 0o700

    def test_a_socket_that_nobody_listens_at_counts_as_away(self, shipped: World) -> None:
        with shipped.daemon(lambda _: GOOD):
            pass
        assert os.path.exists(shipped.socket)
        fails(shipped.start(**self.command(shipped, "exit 1")))
        assert self.calls(shipped) == ["daemon --detach"]

    def test_containerd_s_own_notifications_are_not_the_daemon_s(self, shipped: World) -> None:
        command = self.command(shipped, f"env >{shipped.directory}/env; exit 1")
        shipped.start(**command, NOTIFY_SOCKET="/n", LISTEN_FDS="1", WATCHDOG_USEC="5")
        with open(os.path.join(shipped.directory, "env"), encoding="utf-8") as file:
            assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"} & {line.partition("=")[0] for line in file}


class TestOrdinaryContainers:
    SHOW = 'printf "%s|" "$0" "$@" "$TTRPC_ADDRESS"; cat'

    def test_the_program_takes_our_place(self, world: World) -> None:
        script = world.script("shim-runc", self.SHOW)
        with world.daemon(lambda _: answer(exec=script)):
            done = world.start(b"options\0any", TTRPC_ADDRESS="/t.sock")
        words = [
            script,
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "c1",
        ]
        assert done.stdout == "|".join([*words, "start", "/t.sock", ""]).encode() + b"options\0any"
        assert (done.returncode, done.stderr) == (0, b"")
        with open(os.path.join(world.bundle, "unikeel-exec"), encoding="utf-8") as file:
            assert file.read() == script
        assert os.listdir(world.bundle) == ["unikeel-exec"]

    def test_and_its_exit_code_and_errors_are_its_own(self, world: World) -> None:
        script = world.script("shim-runc", "cat; echo no >&2; exit 7")
        with world.daemon(lambda _: answer(exec=script)):
            done = world.start()
        assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"no\n")

    def test_a_name_is_looked_up_as_containerd_would(self, world: World) -> None:
        world.script("shim-runc", "echo here")
        words = (
            "-namespace",
            "ns",
            "-id",
            "c1",
            "-publish-binary",
            os.path.join(world.directory, "containerd"),
            "start",
        )
        with world.daemon(lambda _: answer(exec="shim-runc")):
            assert world.run(*words).stdout == b"here\n"
            assert world.start(PATH=f"relative::{world.directory}:/bin").stdout == b"here\n"
            assert "neither on the PATH" in fails(world.start())

    def test_not_ourselves(self, world: World) -> None:
        os.symlink(world.program, os.path.join(world.directory, "link"))
        with world.daemon(lambda _: answer(exec=os.path.join(world.directory, "link"))):
            assert "this program itself" in fails(world.start())

    def test_delete_finds_the_program_again_and_asks_nobody(self, world: World) -> None:
        script = world.script("shim-runc", 'printf "%s|" "$@"; echo warning >&2; exit 3')
        with world.daemon(lambda _: answer(exec=script)) as daemon:
            world.start()
            done = world.delete()
        assert done.stdout.split(b"|")[-2:] == [b"delete", b""]
        assert (done.returncode, done.stderr, len(daemon.asked)) == (3, b"warning\n", 1)

    @pytest.mark.parametrize("text", [b"", b"x" * 5000, b"/bin/\0sh", b"not-there"])
    def test_a_note_that_is_none(self, world: World, text: bytes) -> None:
        with open(os.path.join(world.bundle, "unikeel-exec"), "wb") as file:
            file.write(text)
        done = world.delete()
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"ordinary container" in done.stderr

    def test_a_note_that_is_a_link_is_not_followed(self, world: World) -> None:
        os.symlink("/bin/sh", os.path.join(world.bundle, "unikeel-exec"))
        assert b"cannot be read" in world.delete().stderr


class TestRelay:
    def test_the_child_s_answer_goes_through_the_daemon(self, world: World) -> None:
        script = world.script("shim-runc", 'cat; echo " $1"')
        relayed: list[RelayRequest] = []

        def answerer(asked: Asked) -> bytes:
            if asked.method == "Start":
                return answer(exec=script, relay=True)
            assert asked.method == "Relay"
            relayed.append(RelayRequest.FromString(asked.payload))
            return answer(output=b"unix:///relay.sock")

        with world.daemon(answerer):
            done = world.start(b"input")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"unix:///relay.sock", b"")
        (request,) = relayed
        assert request.output == b"input -namespace\n"
        assert (request.namespace, request.id, request.bundle) == ("k8s.io", "c1", world.bundle)
        assert request.grpc_address == "/run/containerd/containerd.sock"
        assert os.path.exists(os.path.join(world.bundle, "unikeel-exec"))

    @pytest.mark.parametrize(
        ("text", "code", "part"),
        [
            ("echo broken; exit 4", 4, b"broken"),
            ("kill -9 $$", 137, b""),
            ("head -c 2000000 /dev/zero", 1, b"printed more than"),
        ],
    )
    def test_a_child_that_fails_is_not_relayed(self, world: World, text: str, code: int, part: bytes) -> None:
        script = world.script("shim-runc", text)
        with world.daemon(lambda _: answer(exec=script, relay=True)) as daemon:
            done = world.start()
        assert (done.returncode, len(daemon.asked)) == (code, 1)
        assert part in done.stdout

    def test_a_relay_that_is_refused(self, world: World) -> None:
        script = world.script("shim-runc", "echo fine")
        with world.daemon(
            lambda asked: answer(exec=script, relay=True) if asked.method == "Start" else refusal(14, "no more sockets")
        ):
            assert "no more sockets" in fails(world.start())


class TestDelete:
    def test_the_daemon_s_answer_is_printed(self, world: World) -> None:
        output = DeleteResponse(pid=5, exit_status=3).SerializeToString()
        with world.daemon(lambda _: answer(output=output)) as daemon:
            done = world.delete()
        assert (done.returncode, done.stdout, done.stderr) == (0, output, b"")
        assert daemon.asked[0].method == "Delete"
        assert daemon.asked[0].launch.bundle == world.bundle

    def test_with_the_daemon_away_it_waits_and_answers_itself(self, world: World) -> None:
        command = world.script("unikeel", f"echo >>{world.directory}/calls; exit 1")
        begin = time.monotonic()
        done = world.delete(UNIKEEL_COMMAND=command)
        assert 0.5 < time.monotonic() - begin < 3
        assert (done.returncode, done.stderr) == (0, b"")
        response = DeleteResponse.FromString(done.stdout)
        assert (response.pid, response.exit_status) == (0, 255)
        assert abs(response.exited_at.seconds - time.time()) < 10
        with open(os.path.join(world.directory, "calls"), encoding="utf-8") as file:
            assert file.read() == "\n"

    def test_a_silent_daemon_is_away_too(self, shipped: World) -> None:
        release = threading.Event()
        with shipped.daemon(lambda _: silent(release)):
            begin = time.monotonic()
            done = shipped.delete(UNIKEEL_DELETE_SECONDS="0.3")
            assert time.monotonic() - begin < 2
            release.set()
        assert DeleteResponse.FromString(done.stdout).exit_status == 255

    def test_one_that_comes_back_in_time_is_asked_again(self, shipped: World) -> None:
        times = iter(range(100))
        with shipped.daemon(lambda _: None if next(times) < 3 else answer(output=b"\x10\x05")) as daemon:
            done = shipped.delete(UNIKEEL_DELETE_SECONDS="4")
        assert (done.stdout, len(daemon.asked)) == (b"\x10\x05", 4)

    def test_the_limit_is_four_seconds(self, shipped: World) -> None:
        begin = time.monotonic()
        assert shipped.delete(UNIKEEL_DELETE_SECONDS="nonsense").returncode == 0
        assert 3.9 < time.monotonic() - begin < 5  # containerd's own limit

    def test_errors_go_to_standard_error_alone(self, world: World) -> None:
        with world.daemon(lambda _: answer(exit=70, error="its cgroup is busy")):
            done = world.delete()
        assert (done.returncode, done.stdout, done.stderr) == (70, b"", b"its cgroup is busy\n")
        assert world.run("-namespace", "ns", "delete").stdout == b""


def test_a_start_is_measured(
    programs: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "candidates", lambda: (programs["static"],))
    assert bench.main(["--samples", "3"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["ms", "n", "min", "p50", "p90", "p99", "max"]
    assert (first.split()[:2], second.split()[:2]) == (["launcher", "3"], ["true", "3"])


def test_a_launcher_that_fails_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "candidates", lambda: ("/bin/false",))
    assert bench.main(["--samples", "1"]) == 1
    assert "/bin/false ended with 1" in capsys.readouterr().err


def test_the_binary_is_static_and_found(programs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(programs["static"], "rb") as file:
        assert b"/ld-linux" not in file.read()
    monkeypatch.setattr(launcher, "candidates", lambda: ("/no/such", programs["static"]))
    assert launcher.binary() == programs["static"]
    monkeypatch.setattr(launcher, "candidates", lambda: ("/no/such",))
    with pytest.raises(NotFound, match="make launcher"):
        launcher.binary()


def test_building_says_what_is_missing(
    tmp_path: object, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = os.path.join(str(tmp_path), "build", "launcher")
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert building.main([output]) == 1
    assert "gcc" in capfd.readouterr().err
    monkeypatch.setenv("CC", "false")
    assert building.main([output]) == 1
    assert os.listdir(os.path.dirname(output)) == []
    assert building.main([]) == 2
    assert building.version() == VERSION


def test_what_is_current_is_left_alone(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    output = os.path.join(str(tmp_path), "launcher")
    with open(output, "w", encoding="utf-8"):
        pass
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert building.is_current(output)
    assert building.main([output]) == 0
    os.utime(output, (1, 1))
    assert not building.is_current(output)
