"""What completion answers, from the commands' tables."""

from __future__ import annotations

import os
import subprocess

import pytest

from unikeel.cli.completing import SCRIPTS, answer
from unikeel.cli.options import CONTAINERS, IMAGES, POOLS, SNAPSHOTS

asked: list[tuple[str, str, str]] = []


def lookup(kind: str, root: str, config: str) -> list[str]:
    asked.append((kind, root, config))
    names = {
        CONTAINERS: ["web", "worker", "db"],
        IMAGES: ["nginx", "hello"],
        POOLS: ["main", "trial"],
        SNAPSHOTS: ["base", "key"],
    }
    return names[kind]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ru", ["run"]),
        ("i", ["inspect", "image", "install"]),
        ("image l", ["load", "ls"]),
        ("boot ", ["ls", "gc"]),
        ("pool ", ["create", "status", "grow", "check", "destroy"]),
        ("pool create --type f", ["file"]),
        ("pool create main --data ", [":files"]),
        ("pool destroy main t", ["trial"]),
        ("pool grow main ", []),
        ("snapshot usage b", ["base"]),
        ("stop w", ["web", "worker"]),
        ("stop web w", ["web", "worker"]),
        ("inspect ", ["web", "worker", "db"]),
        ("logs web ", []),
        ("run n", ["nginx"]),
        ("run -d --name x h", ["hello"]),
        ("run --boot-files c", ["cache", "copy"]),
        ("run --net ", ["user", "none"]),
        ("run --time", ["--timeline", "--timeout"]),
        ("run --timeline ", [":files"]),
        ("run --boot-files = c", ["cache", "copy"]),
        ("run --net =", ["user", "none"]),
        ("run hello --n", []),
        ("run hello -d ", []),
        ("--root ", [":directories"]),
        ("--root /x ps --j", ["--json"]),
        ("image build ", [":directories"]),
        ("image load ", [":files"]),
        ("ps ", []),
        ("nonsense ", []),
        ("--", ["--config", "--debug", "--help", "--root"]),
    ],
)
def test_candidates(line: str, expected: list[str]) -> None:
    assert answer(line.split(" "), lookup) == expected


@pytest.mark.parametrize("line", ["--root /x --config=/c stop ", "stop --root=/x --config /c "])
def test_names_are_those_of_the_state_root_on_the_line(line: str) -> None:
    asked.clear()
    answer(line.split(" "), lookup)
    assert asked == [(CONTAINERS, "/x", "/c")]


def test_no_words_are_an_empty_word() -> None:
    assert "run" in answer([], lookup)


def test_the_bash_script_offers_what_the_program_answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("bin")
    fake = directory / "unikeel"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.asked"\nprintf "web\\nworker\\n"\n')
    fake.chmod(0o755)
    script = SCRIPTS["bash"] + (
        'COMP_WORDS=(unikeel --root "/a b" stop w extra); COMP_CWORD=4; _unikeel; echo "${COMPREPLY[@]}"\n'
    )
    environment = {"PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "web worker\n"
    assert (directory / "unikeel.asked").read_text() == "__complete\n--\n--root\n/a b\nstop\nw\n"
