"""Finding the command, help, and what every error becomes: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import pytest

from unikeel.cli import commands
from unikeel.cli.main import entry
from unikeel.version import VERSION

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nonsense"], 2, "unikeel: there is no command 'nonsense' (`unikeel --help` shows all commands)\n"),
        (["rnu"], 2, "unikeel: there is no command 'rnu' (did you mean `unikeel run`?)\n"),
        (["image", "lsd"], 2, "unikeel: there is no command 'image lsd' (did you mean `unikeel image ls`?)\n"),
        (["--rot", "x", "ps"], 2, "unikeel: option '--rot' is unknown (did you mean --root?)\n"),
        (["ps", "--jsno"], 2, "unikeel: option '--jsno' is unknown (did you mean --json?)\n"),
        (["ps", "x"], 2, "unikeel: ps: 'x' is too much (usage: unikeel ps [OPTION…])\n"),
        (["config", "--config", "/nonexistent"], 78, "unikeel: the configuration file /nonexistent does not exist\n"),
        (
            ["completion", "fsh"],
            2,
            "unikeel: there is no completion for 'fsh' (did you mean 'fish'? known: bash, fish, zsh)\n",
        ),
        (["run", "-p", "80", "x"], 2, "unikeel: '80' does not name ports to publish"),
        (["kill", "-s", "TRM", "x"], 2, "unikeel: there is no signal 'TRM' (did you mean TERM?)\n"),
        (["start", "-a", "x", "y"], 2, "unikeel: only one container can be started with --attach or --timeline\n"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_sentence(
    words: list[str], code: int, sentence: str, capsys: Captured
) -> None:
    assert entry(words) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_command_shows_help_and_is_wrong_usage(capsys: Captured) -> None:
    assert entry([]) == 2
    assert entry(["image"]) == 2
    assert "usage: unikeel" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: Captured) -> None:
    assert entry(words) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in commands.NAMES)
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("name", commands.NAMES)
def test_each_command_has_help_in_three_ways(name: str, capsys: Captured) -> None:
    texts = []
    for words in ([*name.split(), "--help"], ["help", *name.split()], ["--help", *name.split()]):
        assert entry(words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].startswith(f"usage: unikeel {name}")
    assert max(len(line) for line in texts[0].splitlines()) <= 110


def test_a_groups_help_lists_its_commands(capsys: Captured) -> None:
    assert entry(["image", "--help"]) == 0
    assert "  image load " in capsys.readouterr().out


def test_the_version_in_both_ways(capsys: Captured) -> None:
    assert entry(["version"]) == 0
    assert entry(["--version"]) == 0
    assert capsys.readouterr().out == f"unikeel {VERSION}\n" * 2


@pytest.mark.parametrize(
    "words",
    [
        ["--root", "/some/where", "config"],
        ["config", "--root", "/some/where"],
        ["config", "--root=/some/where"],
        ["--root", "/other", "config", "--root", "/some/where"],
    ],
)
def test_options_of_all_commands_stand_before_or_after(words: list[str], capsys: Captured) -> None:
    assert entry(words) == 0
    assert capsys.readouterr().out.startswith('root = "/some/where"\n')


def test_the_environment_names_the_root(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("UNIKEEL_ROOT", "/from/environment")
    assert entry(["config"]) == 0
    assert entry(["config", "--root", "/from/option"]) == 0
    text = capsys.readouterr().out
    assert 'root = "/from/environment"\n' in text
    assert 'root = "/from/option"\n' in text


def test_an_unknown_key_of_the_configuration_names_the_nearest(
    tmp_path_factory: pytest.TempPathFactory, capsys: Captured
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text("[boot]\nstrateggy = 'cache'\n")
    assert entry(["--config", str(path), "config"]) == 78
    assert "(did you mean boot.strategy?)" in capsys.readouterr().err


def test_a_traceback_is_shown_only_for_debug(capsys: Captured) -> None:
    words = ["config", "--config", "/nonexistent"]
    assert entry(words) == 78
    assert "Traceback" not in capsys.readouterr().err
    assert entry(["--debug", *words]) == 78
    assert "Traceback" in capsys.readouterr().err
    assert entry([*words, "--debug"]) == 78
    assert "Traceback" in capsys.readouterr().err
