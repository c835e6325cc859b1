"""What is found out about a monitor once: version, acceleration, and the files that remember it."""

from __future__ import annotations

import os
import threading

import pytest

from unikeel.errors import InvalidArgument, Unavailable
from unikeel.monitors import host, kvm_probe, memory, probe_guest
from unikeel.monitors.contract import Facts
from unikeel.monitors.kvm_probe import Acceleration, Run, choose_accel, decide

FACTS = Facts("/bin/qemu", (7, 2), (), "identity 1")
ANSWER = Acceleration("tcg", "because", None, 70.5)


def program(directory: object, script: str) -> str:
    path = f"{directory}/qemu-system-x"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)
    return path


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright", (7, 2, 22)),
        ("QEMU emulator version 10.0.2\n", (10, 0, 2)),
        ("QEMU emulator version 9.0", (9, 0)),
    ],
)
def test_version(output: str, version: tuple[int, ...]) -> None:
    assert host.parse_version(output, "q") == version


@pytest.mark.parametrize("output", ["", "version", "version x.y", "no number", "version 7"])
def test_what_says_no_version_is_not_available(output: str) -> None:
    with pytest.raises(Unavailable, match="does not say its version"):
        host.parse_version(output, "q")


def test_the_program_is_asked_once_until_it_is_replaced(tmp_path: object) -> None:
    cache = f"{tmp_path}/cache"
    path = program(tmp_path, f"echo asked >> {tmp_path}/log; echo QEMU emulator version 8.1.0")
    for _ in range(3):
        assert host.qemu_facts(path, cache).version == (8, 1, 0)
    program(tmp_path, f"echo asked >> {tmp_path}/log; echo QEMU emulator version 9.10.0")
    facts = host.qemu_facts(path, cache)
    assert (facts.version, facts.path, facts.binds[0]) == ((9, 10, 0), path, path)
    with open(f"{tmp_path}/log", encoding="utf-8") as file:
        assert file.read() == "asked\nasked\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"qemu": 1}',
        '{"qemu": {"identity": "IDENTITY"}}',
        '{"qemu": {"identity": "IDENTITY", "version": ["a"]}}',
    ],
)
def test_a_damaged_memory_is_only_forgotten(tmp_path: object, content: str) -> None:
    path = program(tmp_path, "echo QEMU emulator version 8.1.0")
    with open(f"{tmp_path}/monitors.json", "w", encoding="utf-8") as file:
        file.write(content.replace("IDENTITY", host.identify(path)))
    assert host.qemu_facts(path, str(tmp_path)).version == (8, 1, 0)


def test_a_memory_that_cannot_be_written_does_no_harm(tmp_path: object) -> None:
    path = program(tmp_path, "echo QEMU emulator version 8.1.0")
    assert host.qemu_facts(path, f"{path}/not-a-directory").version == (8, 1, 0)


def test_a_monitor_that_is_too_old_missing_or_misnamed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"version 6\.2\.0, too old"):
        host.qemu_facts(program(tmp_path, "echo QEMU emulator version 6.2.0"), "")
    with pytest.raises(Unavailable, match="No such file"):
        host.qemu_facts(f"{tmp_path}/none", "")
    with pytest.raises(Unavailable, match="must be absolute"):
        host.qemu_facts("qemu", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="the monitor qemu-system-.* is not installed"):
        host.qemu_facts("", "")


def test_the_monitor_is_found_in_path(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "echo QEMU emulator version 8.1.0")
    named = f"{tmp_path}/qemu-system-{os.uname().machine}"
    os.rename(path, named)
    monkeypatch.setenv("PATH", f"relative:{tmp_path}/none:{tmp_path}")
    assert host.qemu_facts("", "").path == named


def test_a_program_that_hangs_is_killed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "VERSION_DEADLINE", 0.01)
    with pytest.raises(Unavailable, match="did not say its version"):
        host.qemu_facts(program(tmp_path, "exec sleep 600"), "")


def test_memory_is_private_and_whole(tmp_path: object) -> None:
    memory.write_memory(f"{tmp_path}/new", "x.json", {"a": 1})
    assert memory.read_memory(f"{tmp_path}/new", "x.json") == {"a": 1}
    assert os.stat(f"{tmp_path}/new/x.json").st_mode & 0o777 == 0o600
    assert os.listdir(f"{tmp_path}/new") == ["x.json"]


@pytest.mark.parametrize(
    ("kvm", "tcg", "accel", "reason"),
    [
        (Run(None, "aborted"), Run(90.0, ""), "tcg", "KVM does not work: aborted"),
        (Run(None, "aborted"), Run(None, "too"), "tcg", "KVM does not work: aborted"),
        (Run(200.0, ""), Run(90.0, ""), "tcg", "KVM is slower than emulation here (200 ms against 90)"),
        (Run(30.0, ""), Run(90.0, ""), "kvm", "KVM works (30 ms against 90)"),
        (Run(30.0, ""), Run(None, "x"), "kvm", "KVM works (30 ms; emulation failed)"),
    ],
)
def test_kvm_is_chosen_only_if_it_was_faster(kvm: Run, tcg: Run, accel: str, reason: str) -> None:
    assert decide(kvm=kvm, tcg=tcg) == Acceleration(accel, reason, kvm.ms, tcg.ms)


def test_without_the_device_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm_probe, "KVM", "/dev/none")
    assert choose_accel("auto", FACTS, "") == Acceleration(
        "tcg", "/dev/none cannot be opened: No such file or directory"
    )
    with pytest.raises(Unavailable, match="KVM is configured, but /dev/none"):
        choose_accel("kvm", FACTS, "")


def test_the_user_is_taken_at_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm_probe, "kvm_problem", str)
    assert choose_accel("kvm", FACTS, "").accel == "kvm"
    assert choose_accel("tcg", FACTS, "").accel == "tcg"
    with pytest.raises(InvalidArgument, match="'xen' is unknown"):
        choose_accel("xen", FACTS, "")


def test_many_at_once_measure_once_per_boot_and_program(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Facts] = []

    def measure(facts: Facts) -> Acceleration:
        measured.append(facts)
        return ANSWER

    monkeypatch.setattr(kvm_probe, "measure", measure)
    monkeypatch.setattr(kvm_probe, "kvm_problem", str)
    answers: list[Acceleration] = []
    threads = [
        threading.Thread(target=lambda: answers.append(choose_accel("auto", FACTS, str(tmp_path)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, len(measured)) == ([ANSWER] * 8, 1)
    choose_accel("auto", FACTS._replace(identity="identity 2"), str(tmp_path))
    assert len(measured) == 2
    monkeypatch.setattr(kvm_probe, "boot_id", lambda: "another boot")
    choose_accel("auto", FACTS._replace(identity="identity 2"), str(tmp_path))
    assert len(measured) == 3


@pytest.mark.parametrize(
    "content", ["", '{"key": 1}', '{"key": "KEY", "accel": "xen", "reason": "x"}', '{"key": "KEY", "accel": "kvm"}']
)
def test_a_damaged_answer_is_measured_anew(tmp_path: object, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(kvm_probe, "measure", lambda _: ANSWER)
    monkeypatch.setattr(kvm_probe, "kvm_problem", str)
    monkeypatch.setattr(kvm_probe, "boot_id", lambda: "boot")
    with open(f"{tmp_path}/accel.json", "w", encoding="utf-8") as file:
        file.write(content.replace("KEY", "boot identity 1"))
    assert choose_accel("auto", FACTS, str(tmp_path)) == ANSWER


def test_where_no_file_can_be_made_everybody_measures(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm_probe, "measure", lambda _: ANSWER)
    monkeypatch.setattr(kvm_probe, "kvm_problem", str)
    assert choose_accel("auto", FACTS, f"{program(tmp_path, '')}/sub") == ANSWER


def test_a_monitor_that_fails_or_hangs_is_told_from_one_that_works(tmp_path: object) -> None:
    def run(script: str, deadline: float = 60) -> Run:
        return kvm_probe.run_guest(FACTS._replace(path=program(tmp_path, script)), "kvm", deadline)

    assert run(f"exit {probe_guest.EXIT_STATUS}").failure == ""
    assert run("exit 0") == Run(None, "QEMU ended with status 0")
    assert run("echo 'qemu-system-x86_64: error: bad' >&2; exit 1") == Run(None, "QEMU ended with status 1: bad")
    assert run("kill -6 $$") == Run(None, "QEMU was killed by signal 6")
    assert run("exec sleep 600", 0.01) == Run(None, "a short loop had not ended after 0.01 s")


def test_the_measuring_guest_is_an_elf_with_a_note_that_names_its_first_instruction() -> None:
    image = probe_guest.image(5)
    note = image.index(b"Xen\0")
    entry = int.from_bytes(image[note + 4 : note + 8], "little")
    assert image[:4] == b"\x7fELF"
    assert entry - 0x100000 == note + 8
    assert image[note + 8 : note + 10] == b"\xc7\x05"
    assert len(image) < 512
