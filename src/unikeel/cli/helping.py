"""Help texts, made from the commands' tables."""

from __future__ import annotations

from unikeel.cli import commands
from unikeel.cli.options import GLOBAL, Command, Option, synopsis
from unikeel.cli.output import write
from unikeel.lean import Final

_WIDTH: Final = 100
_ABOUT: Final = "unikeel runs unikernels and microVMs as containers, booted straight from block snapshots."


def show(name: str) -> None:
    """Print the help of a command, of a group, or with an empty name of all. :raise InvalidArgument: there is no such command."""
    if not name:
        write(overview())
    elif name in commands.GROUPS:
        write(group(name))
    else:
        commands.check_known(name)
        write(of_command(commands.load(name).COMMAND))


def overview() -> str:
    """All commands, a line each."""
    rows = [(name, commands.load(name).COMMAND.summary) for name in commands.NAMES]
    lines = ["usage: unikeel [--root DIR] [--config FILE] COMMAND …", "", _ABOUT, "", "commands:", *columns(rows), ""]
    lines += ["options of all commands:", *columns(option_rows(GLOBAL)), ""]
    lines += ["`unikeel COMMAND --help` shows one command. Begin with: unikeel doctor"]
    return "\n".join(lines) + "\n"


def group(name: str) -> str:
    """The commands of a group, a line each."""
    rows = [(f"{name} {word}", commands.load(f"{name} {word}").COMMAND.summary) for word in commands.members(name)]
    return "\n".join([f"usage: unikeel {name} COMMAND …", "", *columns(rows)]) + "\n"


def of_command(command: Command) -> str:
    """Everything about one command."""
    lines = [f"usage: unikeel {command.name} {synopsis(command)}".rstrip(), "", sentence(command.summary)]
    if command.details:
        lines += ["", *wrapped(command.details, "")]
    if command.arguments:
        lines += ["", "arguments:", *columns([(argument.name, argument.help) for argument in command.arguments])]
    if command.options:
        lines += ["", "options:", *columns(option_rows(command.options))]
    lines += ["", "options of all commands:", *columns(option_rows(GLOBAL))]
    if command.examples:
        lines += ["", "examples:"]
        for text, what in command.examples:
            lines += [f"  {text}", f"      {what}"]
    return "\n".join(lines) + "\n"


def option_rows(options: tuple[Option, ...]) -> list[tuple[str, str]]:
    """Options as two columns: how it is written, what it does."""
    return [(written(option), described(option)) for option in options]


def written(option: Option) -> str:
    """``-n, --name NAME``"""
    return ", ".join(option.names) + (f" {option.value}" if option.value else "")


def described(option: Option) -> str:
    """The help, with the choices and whether it may be repeated."""
    choices = f": {', '.join(option.choices)}" if option.choices and not option.free else ""
    return option.help + choices + (" (may be repeated)" if option.many else "")


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + "."


def columns(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns, the second wrapped; a long first entry has a line of its own."""
    width = min(26, max((len(left) for left, _ in rows), default=0))
    lines: list[str] = []
    for left, right in rows:
        text = wrapped(right, " " * (width + 4))
        if len(left) > width:
            lines += [f"  {left}", *text]
        else:
            lines += [f"  {left.ljust(width)}  {text[0].lstrip() if text else ''}".rstrip(), *text[1:]]
    return lines


def wrapped(text: str, indent: str) -> list[str]:
    """Lines of at most 100 characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) + len(line) + 1 + len(word) > _WIDTH:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, indent + line] if line else lines
