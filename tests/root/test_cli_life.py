"""The command line on real guests: crun, QEMU, the sample ``hello``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_world import LIMIT, Cli, read_until, world
from synthetic_images import one, tar_of

LAST_LINE = b"disk: "


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with world(str(tmp_path_factory.mktemp("cli")), "hello") as found:
        yield found


@pytest.fixture
def cli(shared: Cli) -> Iterator[Cli]:
    yield shared
    shared.clear()


# -- run in the foreground ------------------------------------------------------------------------------------------------


def test_the_exit_status_is_the_guests_and_words_after_the_image_are_its_own(cli: Cli) -> None:
    done = cli.run("run", "--rm", "hello", "exit=7", "--name", "-d")
    assert (done.returncode, done.stderr) == (7, b"")
    assert b"command line: exit=7 --name -d\n" in done.stdout.replace(b"\r", b"")
    assert cli.json("ps", "-a", "--json") == []


def test_standard_input_goes_to_the_console_and_its_end_does_not_end_the_guest(cli: Cli) -> None:
    done = cli.run("run", "--rm", "hello", "echo", "exit=5", stdin=b"one\ntwo\n\x04")
    assert done.returncode == 5
    assert b"one" in done.stdout
    assert b"two" in done.stdout


def test_without_rm_it_stays_with_its_exit_code(cli: Cli) -> None:
    assert cli.run("run", "--name", "stays", "hello", "exit=3").returncode == 3
    found = cli.json("inspect", "stays")[0]
    assert (found["state"], found["exit_code"], found["runs"]) == ("exited", 3, 1)
    assert cli.good("wait", "stays") == "3\n"
    assert cli.good("rm", "stays") == "stays\n"


def test_a_closed_output_does_not_lose_the_guest(cli: Cli) -> None:
    read, write = os.pipe()
    process = cli.popen("run", "--name", "unread", "hello", "exit=4", stdout=write)
    os.close(write)
    os.close(read)
    _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (4, b"")
    assert "hello from a unikernel" in cli.good("logs", "unread")
    cli.good("rm", "unread")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_guest(cli: Cli, number: signal.Signals) -> None:
    process = cli.popen("run", "--rm", "--name", "signalled", "hello", "wait")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), LAST_LINE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 137
    assert errors == b"unikeel: stopping signalled; once more kills it\n"
    assert cli.json("ps", "-a", "--json") == []


def test_a_second_signal_does_not_wait_for_the_guest(cli: Cli) -> None:
    # The annotation promises that the guest heeds the power button, which it does not: the polite way would take 60 s.
    words = ("--annotation", "org.unikeel.powerdown=true", "--rm", "--name", "stubborn", "hello", "wait")
    environment = {"UNIKEEL_CONFIG": os.path.join(cli.directory, "slow.toml")}
    with open(environment["UNIKEEL_CONFIG"], "w", encoding="utf-8") as file:
        file.write("[keeper]\nidle = 0.5\n[stop]\ntimeout = 600\n")
    process = subprocess.Popen(
        ["env", f"UNIKEEL_CONFIG={environment['UNIKEEL_CONFIG']}", *_argv("run", *words)],
        env=cli.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    read_until(process.stdout.fileno(), LAST_LINE)
    process.send_signal(signal.SIGINT)
    read_until(process.stderr.fileno(), b"once more kills it")
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 137
    assert cli.json("ps", "-a", "--json") == []
    process.communicate()


def _argv(*words: str) -> tuple[str, ...]:
    from cli_world import PROGRAM

    return (*PROGRAM, *words)


@pytest.mark.parametrize(
    "point", ["create.recorded", "create.created", "start.boot-files", "start.launched", "start.running"]
)
def test_a_signal_before_the_guest_runs_undoes_what_was_begun(cli: Cli, point: str) -> None:
    process = cli.popen("run", "-d", "hello", "wait", env={**cli.environment, "UNIKEEL_FAILPOINT": point})
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, output, errors) == (143, b"", b"")
    assert cli.json("ps", "-a", "--json") == []


# -- detached -----------------------------------------------------------------------------------------------------------


def test_detached_it_is_listed_followed_stopped_and_removed(cli: Cli) -> None:
    ident = cli.good("run", "-d", "--name", "idle", "--ready", "first-output", "hello", "wait").strip()
    assert len(ident) == 12
    assert cli.good("ps", "-q") == ident + "\n"
    (listed,) = cli.json("ps", "--json")
    assert (listed["id"], listed["name"], listed["state"], listed["image"]) == (
        ident,
        "idle",
        "running",
        "hello:latest",
    )
    assert listed["pid"] > 1
    follower = cli.popen("logs", "-f", "idle")
    assert follower.stdout is not None
    read_until(follower.stdout.fileno(), LAST_LINE)
    assert cli.good("stop", "idle") == "idle\n"
    follower.communicate(timeout=LIMIT)
    assert follower.returncode == 0
    assert cli.state("idle") == "exited"
    assert "exited (137)" in cli.good("ps", "-a")
    assert cli.good("ps", "-q") == ""
    assert cli.good("rm", ident[:4]) == ident[:4] + "\n"


def test_kill_and_wait(cli: Cli) -> None:
    cli.good("run", "-d", "--name", "victim", "hello", "wait")
    waiter = cli.popen("wait", "victim")
    assert cli.good("kill", "-s", "TERM", "victim") == "victim\n"
    output, _ = waiter.communicate(timeout=LIMIT)
    assert (waiter.returncode, output) == (0, b"143\n")
    cli.good("rm", "victim")


def test_several_at_once_and_one_that_is_not_there(cli: Cli) -> None:
    for name in ("one", "two"):
        cli.good("run", "-d", "--name", name, "hello", "wait")
    done = cli.run("rm", "-f", "one", "none", "two")
    assert (done.returncode, done.stdout) == (66, b"one\ntwo\n")
    assert done.stderr.startswith(b"unikeel: no container 'none'")


def test_a_guest_that_is_not_ready_in_time_is_ended(cli: Cli) -> None:
    words = ("--ready", "console:never printed", "--timeout", "5", "--name", "late", "hello", "wait")
    code, text = cli.bad("run", "-d", *words)
    assert code == 124
    assert "late was not ready in time" in text
    assert cli.state("late") == "exited"
    assert "hello from a unikernel" in cli.good("logs", "late")
    cli.good("rm", "late")


def test_a_detached_guest_that_ends_by_itself_is_removed_without_another_command(cli: Cli) -> None:
    cli.good("run", "-d", "--rm", "hello", "exit=3")
    assert cli.processes() == []
    assert os.listdir(os.path.join(cli.root, "containers")) == []
    assert os.listdir(os.path.join(cli.root, "run/oci")) == []


# -- create, start, start again -----------------------------------------------------------------------------------------


def test_created_started_and_started_again(cli: Cli) -> None:
    ident = cli.good("create", "--name", "again", "hello", "exit=9").strip()
    assert cli.state(ident) == "created"
    for run in (1, 2):
        done = cli.run("start", "-a", "again")
        assert done.returncode == 9
        assert done.stdout.count(b"hello from a unikernel") == 1
        assert cli.json("inspect", "again")[0]["runs"] == run
    assert cli.good("logs", "again").count("hello from a unikernel") == 2
    cli.good("rm", "again")


def test_start_of_several_prints_their_names(cli: Cli) -> None:
    cli.good("create", "--name", "left", "hello", "wait")
    cli.good("create", "--name", "right", "hello", "wait")
    assert cli.good("start", "left", "right") == "left\nright\n"
    assert cli.bad("start", "left")[0] == 75
    cli.good("rm", "-f", "left", "right")


@pytest.mark.parametrize("words", [(), ("-a",), ("--ready", "first-output")])
def test_a_start_of_one_that_runs_leaves_it_alone(cli: Cli, words: tuple[str, ...]) -> None:
    cli.good("run", "-d", "--rm", "--name", "taken", "hello", "wait")
    steps = cli.json("timeline", "--json", "taken")
    code, text = cli.bad("start", *words, "taken")
    assert (code, text) == (75, "unikeel: container taken is running and cannot be started (stop it first)\n")
    assert cli.state("taken") == "running"
    assert cli.json("timeline", "--json", "taken") == steps


# -- the timeline -------------------------------------------------------------------------------------------------------


def test_the_timeline_begins_with_the_process_and_ends_with_the_first_output(cli: Cli) -> None:
    path = os.path.join(cli.directory, "timeline.json")
    start = time.monotonic_ns()
    done = cli.run("run", "--name", "timed", "--timeline", path, "hello", UNIKEEL_START_NS=str(start))
    assert done.returncode == 0, done.stderr
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    assert written == cli.json("timeline", "--json", "timed")
    assert written["start"] == start
    names = [span["name"] for span in written["spans"]]
    assert names[:2] == ["interpreter", "import"]
    assert "exec" in names
    assert names[-1] == "first-output"
    assert all(start <= span["start"] <= span["end"] for span in written["spans"])
    assert cli.good("timeline", "timed").splitlines()[-1].startswith("total")
    cli.good("rm", "timed")


def test_a_start_time_that_cannot_be_is_not_believed(cli: Cli) -> None:
    cli.run("run", "--name", "lied", "hello", UNIKEEL_START_NS="1")
    found = cli.json("timeline", "--json", "lied")
    assert time.monotonic_ns() - found["start"] < 600 * 10**9
    cli.good("rm", "lied")


# -- images and boot files ------------------------------------------------------------------------------------------------


def test_listings_of_images(cli: Cli) -> None:
    (listed,) = cli.json("image", "ls", "--json")
    assert set(listed) == {"name", "digest", "size", "architecture", "created", "layers"}
    assert listed["name"] == "hello:latest"
    (found,) = cli.json("image", "inspect", "hello")
    assert found["digest"] == listed["digest"]
    assert found["annotations"]["com.urunc.unikernel.unikernelType"] == "generic"
    assert "hello:latest" in cli.good("image", "ls")


def test_an_image_is_built_the_same_twice_and_runs(cli: Cli) -> None:
    source = os.path.join(cli.directory, "kernel")
    with open(source, "wb") as file:
        file.write(b"not really a kernel")
    archive = os.path.join(cli.directory, "built.tar")
    words = ("--kernel", source, "--type", "generic", "--cmd", "exit=0", "--name", "built")
    first = cli.good("image", "build", *words, "-o", archive)
    assert [image["name"] for image in cli.json("image", "ls", "--json")] == ["hello:latest"]
    assert cli.good("image", "build", *words) == first
    assert cli.good("image", "load", archive, "--name", "other") == "other:latest\n"
    code, _ = cli.bad("run", "built")
    assert code in (75, 125)
    assert cli.good("image", "rm", "built", "other") == "built\nother\n"


def test_an_image_for_another_machine_is_not_run(cli: Cli, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"of an arm")
    (tmp_path / "image.toml").write_text(
        'name = "foreign"\ntype = "generic"\nkernel = "/k"\narchitecture = "arm64"\n[files]\n"/k" = "kernel"\n'
    )
    cli.good("image", "build", str(tmp_path))
    done = cli.run("run", "foreign")
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"foreign:latest is for arm64, and this host is amd64" in done.stderr
    cli.good("image", "rm", "foreign")


def test_an_image_that_cannot_be_unpacked_is_not_kept(cli: Cli, tmp_path: Path) -> None:
    layers = [tar_of({"a": b"x"}), tar_of({"../evil": b"x"})]
    source = one("hostile:1", layers=layers).write(str(tmp_path / "hostile"))
    before = cli.json("image", "ls", "--json")
    code, errors = cli.bad("image", "load", source)
    assert code == 65
    assert "'..'" in errors
    assert cli.json("image", "ls", "--json") == before


def test_a_missing_boot_file_is_told_with_its_image(cli: Cli, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"a kernel")
    cli.good("image", "build", "--kernel", str(kernel), "--type", "generic", "--name", "empty")
    code, errors = cli.bad("run", "--annotation", "com.urunc.unikernel.binary=/boot/none", "empty")
    assert code == 65
    assert "empty:latest: there is no '/boot/none' in the image" in errors
    cli.good("image", "rm", "empty")


def test_boot_files_are_listed_and_collected(cli: Cli) -> None:
    cli.good("boot", "gc", "--all")
    cli.good("run", "-d", "--name", "user", "--boot-files", "cache", "hello", "wait")
    listed = cli.json("boot", "ls", "--json")
    (found,) = [item for item in listed["holdings"] if item["kind"] == "object"]
    assert not found["reclaimable"]
    assert cli.json("boot", "gc", "--all", "--json") == {"freed": [], "size": 0}
    cli.good("rm", "-f", "user")
    assert cli.json("boot", "gc", "--all", "--json")["size"] == found["size"] > 0
    assert cli.json("boot", "ls", "--json")["holdings"] == []


# -- wrong input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("run", "helo"), 66, "there is no image helo (did you mean hello:latest?)"),
        (("run", "--nmae", "x", "hello"), 2, "did you mean --name?"),
        (("run", "--name", "a b", "hello"), 2, "'a b' cannot be a container's name"),
        (("run", "-m", "1MiB", "hello"), 2, "1 MiB of memory is too little"),
        (("run", "--cpus", "1000", "hello"), 2, "1000 CPUs are out of range"),
        (("run", "--monitor", "qemuu", "hello"), 2, "monitor 'qemuu' is unknown"),
        (("run", "--ready", "sometime", "hello"), 2, "'sometime' is not a way to tell readiness"),
        (("run", "--ready", "port:80", "hello"), 2, "port 80 of the guest is not published"),
        (("run", "--timeline", "/nonexistent/file", "hello"), 2, "--timeline: '/nonexistent/file' cannot be written"),
        (("run", "--timeout", "0", "hello"), 124, "took longer than 0 s"),
        (("run", "--rm", "-d", "--ready", "console:never printed", "hello"), 75, "without --rm its log is kept"),
        (("logs", "nobody"), 66, "no container 'nobody'"),
        (("image", "load", "/nonexistent.tar"), 66, "/nonexistent.tar"),
        (("image", "inspect", "nobody"), 66, "there is no image nobody"),
        (("ps", "--config", "/nonexistent.toml"), 78, "the configuration file /nonexistent.toml does not exist"),
        (("ps", "--root", "/dev/null"), 2, "the state root /dev/null cannot be made"),
    ],
)
def test_wrong_input_is_one_sentence_with_a_code_and_leaves_nothing(
    cli: Cli, words: tuple[str, ...], code: int, part: str
) -> None:
    found, text = cli.bad(*words)
    assert part in text
    assert found == code
    assert cli.json("ps", "-a", "--json") == []


def test_no_room_for_the_output_is_an_error(cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        process = cli.popen("version", stdout=full)
        _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (74, b"unikeel: No space left on device (free some space)\n")


def test_a_reader_that_has_gone_ends_a_listing_quietly(cli: Cli) -> None:
    read, write = os.pipe()
    os.close(read)
    process = cli.popen("version", stdout=write)
    os.close(write)
    _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (141, b"")


def test_closed_standard_streams_are_nobodys_file(cli: Cli) -> None:
    words = " ".join(_argv("run", "--rm", "hello", "exit=3"))
    done = subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], env=cli.environment, timeout=LIMIT)
    assert done.returncode == 3
    assert cli.json("ps", "-a", "--json") == []


def test_without_a_sandbox_it_says_so(cli: Cli) -> None:
    done = cli.run("run", "--rm", "--no-sandbox", "hello", "exit=2")
    assert done.returncode == 2
    assert b"unikeel: the monitor runs unconfined, as root (--no-sandbox)\n" in done.stderr


def test_reconcile_has_nothing_to_do(cli: Cli) -> None:
    assert cli.good("reconcile") == "nothing to do\n"


def test_this_host_can_run_guests_says_the_doctor(cli: Cli) -> None:
    found = cli.json("doctor", "--json")
    assert found["ok"]
    checks = {finding["check"]: finding["level"] for finding in found["findings"]}
    assert checks["sandbox"] == "ok"
    assert checks["qemu"] == "ok"
    assert {"kvm", "tcg", "ext4", "reflink", "skopeo", "passt", "tap", "cni", "space"} <= set(checks)
    assert all(finding["mend"] for finding in found["findings"] if finding["level"] != "ok")
    assert [name for name in os.listdir(cli.root) if name.startswith("doctor-")] == []


def test_names_are_completed(cli: Cli) -> None:
    cli.good("create", "--name", "complete-me", "hello")
    assert cli.good("__complete", "--", "rm", "comp") == "complete-me\n"
    assert cli.good("__complete", "--", "run", "h") == "hello\n"
    cli.good("rm", "complete-me")
