"""Commands as tables, and the strict parser that reads a command line by them.

Our own, because ``argparse`` costs 8 to 12 ms of each start (measured; this costs under 1), and because help, completion and docs/cli.md
are made from the same tables. Rules: ``--name VALUE``, ``--name=VALUE``, ``-n VALUE``, ``-nVALUE``, flags of one letter together (``-aq``),
``--`` ends the options; no abbreviations. Of an option that is given twice the last counts, unless it may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: What completion offers for a value: nothing, files, directories, containers, running ones, images, pools, snapshots.
NOTHING: Final = ""
FILES: Final = "files"
DIRECTORIES: Final = "directories"
CONTAINERS: Final = "containers"
IMAGES: Final = "images"
POOLS: Final = "pools"
SNAPSHOTS: Final = "snapshots"


class Option(NamedTuple):
    """One option. ``value`` is what its value is called; empty: a flag. ``many``: may be repeated, all count. ``free``: it can be
    something else than the choices, too."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()
    complete: str = NOTHING
    free: bool = False

    @property
    def key(self) -> str:
        """What :class:`Parsed` is asked for: the first long name, without its dashes."""
        return next((name for name in self.names if name.startswith("--")), self.names[0]).lstrip("-")


class Argument(NamedTuple):
    """An operand, by position. ``most`` ``None``: any number of them (the last argument only)."""

    name: str
    help: str
    least: int = 1
    most: int | None = 1
    complete: str = NOTHING


class Command(NamedTuple):
    """One command. ``stops``: options end at the first operand, so that the rest belongs to the guest."""

    name: str
    summary: str
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    details: str = ""
    stops: bool = False


#: The options of every command, before or after its name.
GLOBAL: Final = (
    Option(
        ("--root",), "keep all state in DIR instead of /var/lib/unikeel (or UNIKEEL_ROOT)", "DIR", complete=DIRECTORIES
    ),
    Option(("--config",), "read the configuration in FILE", "FILE", complete=FILES),
    Option(("--debug",), "show where in the program an error comes from"),
    Option(("-h", "--help"), "show this help"),
)
JSON: Final = Option(("--json",), "print JSON instead")


class Parsed:
    """What was given. Asking for an option that the command does not have is a mistake of ours (KeyError)."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.values: dict[str, list[str]] = {option.key: [] for option in (*command.options, *GLOBAL)}
        self.operands: list[str] = []

    def flag(self, key: str) -> bool:
        """Whether a flag was given."""
        return bool(self.values[key])

    def text(self, key: str) -> str:
        """An option's value; empty if it was not given."""
        return self.values[key][-1] if self.values[key] else ""

    def maybe(self, key: str) -> str | None:
        """An option's value; ``None`` if it was not given."""
        return self.values[key][-1] if self.values[key] else None

    def texts(self, key: str) -> tuple[str, ...]:
        """All values of an option that may be repeated."""
        return tuple(self.values[key])

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """All values of the form ``K=V``. :raise InvalidArgument: one is not."""
        return tuple(self._pair(key, text) for text in self.values[key])

    def _pair(self, key: str, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidArgument(f"--{key}: {text!r} is not of the form KEY=VALUE")
        return name, value

    def number(self, key: str, least: int = 1) -> int:
        """A whole number; 0 if it was not given. :raise InvalidArgument: it is none, or less than ``least``."""
        text = self.maybe(key)
        if text is None:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise InvalidArgument(f"--{key}: {text!r} is not a whole number from {least} on")
        return int(text)

    def seconds(self, key: str) -> float | None:
        """A time in seconds; ``None`` if it was not given. :raise InvalidArgument: it is none, or more than a day."""
        text = self.maybe(key)
        if text is None:
            return None
        digits = text.replace(".", "", 1)
        if not (digits.isascii() and digits.isdigit() and len(text) < 10 and float(text) <= 86400):
            raise InvalidArgument(f"--{key}: {text!r} is not a number of seconds from 0 to 86400")
        return float(text)

    def size(self, key: str) -> int:
        """A size in bytes; 0 if it was not given. :raise InvalidArgument: it is none, or 0."""
        text = self.maybe(key)
        if text is None:
            return 0
        from unikeel.config_values import parse_size

        try:
            size = parse_size(text)
        except ValueError as error:
            raise InvalidArgument(f"--{key}: {text!r} {error}") from None
        if not 0 < size < 1 << 60:
            raise InvalidArgument(f"--{key}: {text!r} is out of range")
        return size


class _Words:
    """The words of a command line, one at a time."""

    def __init__(self, words: Sequence[str]) -> None:
        self._rest = iter(words)

    def __iter__(self) -> Iterator[str]:
        return self._rest

    def value_of(self, name: str) -> str:
        """The next word, as an option's value. :raise InvalidArgument: there is none."""
        word = next(self._rest, None)
        if word is None:
            raise InvalidArgument(f"option {name} needs a value")
        return word


def parse(command: Command, words: Sequence[str]) -> Parsed:
    """Read a command's words.

    :raise InvalidArgument: an unknown option (the hint has the nearest spelling), a value that is missing or not among the choices,
        too few or too many operands (not looked at when help is asked for).
    """
    parsed = Parsed(command)
    by_name = {name: option for option in (*command.options, *GLOBAL) for name in option.names}
    rest = _Words(words)
    for word in rest:
        if word == "--":
            parsed.operands += rest
        elif word.startswith("--"):
            _long(parsed, by_name, word, rest)
        elif word.startswith("-") and word != "-":
            _short(parsed, by_name, word, rest)
        else:
            parsed.operands.append(word)
            if command.stops:
                parsed.operands += rest
    if not parsed.flag("help"):
        _check_operands(command, parsed.operands)
    return parsed


def _long(parsed: Parsed, by_name: dict[str, Option], word: str, rest: _Words) -> None:
    name, equals, value = word.partition("=")
    option = by_name.get(name) or _unknown(parsed.command, name, by_name)
    if not option.value:
        if equals:
            raise InvalidArgument(f"option {name} takes no value")
        value = name
    elif not equals:
        value = rest.value_of(name)
    _keep(parsed, option, name, value)


def _short(parsed: Parsed, by_name: dict[str, Option], word: str, rest: _Words) -> None:
    letters = word[1:]
    while letters:
        name, letters = "-" + letters[0], letters[1:]
        option = by_name.get(name) or _unknown(parsed.command, name if len(word) == 2 else word, by_name)
        if not option.value:
            _keep(parsed, option, name, name)
            continue
        _keep(parsed, option, name, letters or rest.value_of(name))
        return


def _keep(parsed: Parsed, option: Option, name: str, value: str) -> None:
    if option.choices and not option.free and value not in option.choices:
        from unikeel.model.names import quote, unknown_hint

        raise InvalidArgument(f"{name} cannot be {quote(value)}", unknown_hint(value, option.choices))
    if "\0" in value:
        raise InvalidArgument(f"{name} holds a NUL character")
    parsed.values[option.key].append(value)


def _unknown(command: Command, word: str, by_name: dict[str, Option]) -> Option:
    """Never returns an option. :raise InvalidArgument: always."""
    from unikeel.model.names import nearest, quote

    long = [name for name in by_name if name.startswith("--")]
    near = nearest(word if word.startswith("--") else "-" + word, long) if len(word) > 2 else ""
    help_of = f"unikeel {command.name}".strip()
    hint = f"did you mean {near}?" if near else f"`{help_of} --help` shows what there is"
    raise InvalidArgument(f"option {quote(word)} is unknown", hint)


def _check_operands(command: Command, operands: Sequence[str]) -> None:
    least = sum(argument.least for argument in command.arguments)
    open_ended = any(argument.most is None for argument in command.arguments)
    most = sum(argument.most or 0 for argument in command.arguments)
    usage = f"usage: unikeel {command.name} {synopsis(command)}".rstrip()
    if len(operands) < least:
        missing = command.arguments[min(len(operands), len(command.arguments) - 1)].name
        raise InvalidArgument(f"{command.name}: {missing} is missing", usage)
    if len(operands) > most and not open_ended:
        raise InvalidArgument(f"{command.name}: {operands[most]!r} is too much", usage)


def synopsis(command: Command) -> str:
    """The operands as a usage line has them, after ``[OPTION…]``."""
    parts = ["[OPTION…]"] if command.options else []
    for argument in command.arguments:
        name = argument.name + ("…" if argument.most is None else "")
        parts.append(name if argument.least else f"[{name}]")
    return " ".join(parts)
