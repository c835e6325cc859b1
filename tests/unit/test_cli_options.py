"""The parser of command lines: strict, by table, the same for every command."""

from __future__ import annotations

import pytest

from unikeel.cli.options import Argument, Command, Option, Parsed, parse, synopsis
from unikeel.errors import InvalidArgument

COMMAND = Command(
    "try",
    "a command",
    options=(
        Option(("-a", "--all"), "a flag"),
        Option(("-q", "--quiet"), "another"),
        Option(("-p", "--publish"), "repeated", "PORTS", many=True),
        Option(("--how",), "one of two", "HOW", choices=("cache", "copy")),
        Option(("--name",), "a name", "NAME"),
    ),
    arguments=(Argument("FIRST", "needed"), Argument("REST", "any", 0, None)),
)
RUN = COMMAND._replace(stops=True)
ONE = COMMAND._replace(arguments=(Argument("ONLY", "one"), Argument("MORE", "perhaps", 0, 1)))


def refused(command: Command, *words: str) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parse(command, words)
    return caught.value


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "x", "o"),
        ("--name=x", "o"),
        ("o", "--name", "x"),
        ("--name", "first", "--name", "x", "o"),
    ],
)
def test_a_value_can_be_written_in_every_usual_way(words: tuple[str, ...]) -> None:
    parsed = parse(COMMAND, words)
    assert (parsed.text("name"), parsed.operands) == ("x", ["o"])


def test_letters_can_stand_together_and_the_last_may_take_a_value() -> None:
    parsed = parse(COMMAND, ["-aqp80:80", "-p", "81:81", "o"])
    assert parsed.flag("all")
    assert parsed.flag("quiet")
    assert parsed.texts("publish") == ("80:80", "81:81")


def test_what_was_not_given_is_empty() -> None:
    parsed = parse(COMMAND, ["o"])
    assert not parsed.flag("all")
    assert parsed.text("name") == ""
    assert parsed.maybe("name") is None
    assert (parsed.number("name"), parsed.seconds("name"), parsed.size("name")) == (0, None, 0)


def test_an_empty_value_is_a_value() -> None:
    assert parse(COMMAND, ["--name=", "o"]).maybe("name") == ""


def test_two_dashes_end_the_options() -> None:
    assert parse(COMMAND, ["--", "--name", "-a"]).operands == ["--name", "-a"]


def test_a_single_dash_is_an_operand() -> None:
    assert parse(COMMAND, ["-", "-a"]).operands == ["-"]


def test_options_of_run_end_at_the_image() -> None:
    parsed = parse(RUN, ["-a", "image", "-q", "--name", "--", "--help", "--nonsense"])
    assert parsed.operands == ["image", "-q", "--name", "--", "--help", "--nonsense"]
    assert not parsed.flag("quiet")
    assert not parsed.flag("help")


def test_a_value_may_begin_with_a_dash() -> None:
    assert parse(COMMAND, ["--name", "-x", "o"]).text("name") == "-x"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--nam", "x"), "option '--nam' is unknown", "did you mean --name?"),
        (("--zzzzzz",), "option '--zzzzzz' is unknown", "`unikeel try --help` shows what there is"),
        (("-z",), "option '-z' is unknown", "`unikeel try --help` shows what there is"),
        (("-zzz",), "option '-zzz' is unknown", "`unikeel try --help` shows what there is"),
        (("-nme", "x"), "option '-nme' is unknown", "did you mean --name?"),
        (("--name",), "option --name needs a value", ""),
        (("-p",), "option -p needs a value", ""),
        (("--all=yes", "o"), "option --all takes no value", ""),
        (("--how", "cach", "o"), "--how cannot be 'cach'", "did you mean 'cache'? known: cache, copy"),
        (("--name", "a\0b", "o"), "--name holds a NUL character", ""),
        ((), "try: FIRST is missing", "usage: unikeel try [OPTION…] FIRST [REST…]"),
    ],
)
def test_what_is_wrong_is_refused_with_the_way_out(words: tuple[str, ...], message: str, hint: str) -> None:
    error = refused(COMMAND, *words)
    assert (error.message, error.hint) == (message, hint)


def test_too_many_operands_are_refused() -> None:
    assert refused(ONE, "a", "b", "c").message == "try: 'c' is too much"
    assert parse(ONE, ["a", "b"]).operands == ["a", "b"]


def test_help_needs_no_operands() -> None:
    assert parse(COMMAND, ["--help"]).flag("help")
    assert parse(COMMAND, ["-h"]).flag("help")


def test_global_options_are_known_everywhere() -> None:
    parsed = parse(COMMAND, ["o", "--root", "/x", "--debug"])
    assert (parsed.text("root"), parsed.flag("debug")) == ("/x", True)


def test_asking_for_an_option_that_is_not_in_the_table_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        parse(COMMAND, ["o"]).flag("nonsense")


def value(text: str) -> Parsed:
    return parse(COMMAND, ["--name", text, "o"])


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("64", 64)])
def test_numbers(text: str, number: int) -> None:
    assert value(text).number("name") == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "²", "99999999999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="whole number"):
        value(text).number("name")


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("1.5", 1.5), ("86400", 86400.0)])
def test_seconds(text: str, seconds: float) -> None:
    assert value(text).seconds("name") == seconds


@pytest.mark.parametrize("text", ["", ".", "-1", "nan", "inf", "1e3", "86401", "1..5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        value(text).seconds("name")


@pytest.mark.parametrize(("text", "size"), [("64MiB", 64 << 20), ("2g", 2 << 30), ("1048576", 1 << 20)])
def test_sizes(text: str, size: int) -> None:
    assert value(text).size("name") == size


@pytest.mark.parametrize("text", ["", "0", "x", "64 furlongs", "9999999TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--name"):
        value(text).size("name")


def test_pairs() -> None:
    assert value("a=b=c").pairs("name") == (("a", "b=c"),)
    for wrong in ("a", "=b", ""):
        with pytest.raises(InvalidArgument, match="KEY=VALUE"):
            value(wrong).pairs("name")


def test_the_synopsis_tells_what_may_be_left_out() -> None:
    assert synopsis(COMMAND) == "[OPTION…] FIRST [REST…]"
    assert synopsis(Command("x", "y")) == ""
