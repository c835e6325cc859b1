"""docs/cli.md, made from the commands' tables: ``python -m unikeel.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys

from unikeel.cli import commands
from unikeel.cli.failures import exit_codes
from unikeel.cli.helping import described, sentence, written
from unikeel.cli.options import GLOBAL, Command, Option, synopsis
from unikeel.lean import Final

_HEAD: Final = """# The command line

<!-- Made from the tables in src/unikeel/cli/ by `python -m unikeel.cli.reference`; a test compares. -->

`unikeel COMMAND --help` prints what is here for one command. Options are written `--name VALUE`, `--name=VALUE`, `-n VALUE` or `-nVALUE`;
flags of one letter can stand together (`-aq`); `--` ends the options; nothing can be abbreviated. Of an option that is given
twice the last counts, unless it may be repeated. Every listing has `--json`, whose keys stay as they are.

What a command was asked to print goes to standard output, everything else to standard error, in lines that begin with `unikeel: `. An error is one
sentence: what failed, with which input, and in parentheses what to do about it. Long work shows a bar on a terminal and nothing in a pipe.
"""
_SIGNALS: Final = """## Signals

In the foreground (`run`, `start -a`), SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the guest as `unikeel stop` does; a second one kills it. Before the guest
runs they undo the start. If standard output is closed, the guest goes on and its log keeps what it prints. Killing the command itself
(SIGKILL) leaves the guest running: `unikeel ps` shows it.

## The timeline's zero point

The steps of a start are counted from the start of the process, which the kernel tells to 10 ms. A caller that wants it exactly sets
`UNIKEEL_START_NS` to the instant in which it starts the command, in nanoseconds of the monotonic clock.
"""


def reference() -> str:
    """The text of docs/cli.md."""
    lines = [
        _HEAD,
        "## Options of all commands",
        "",
        "They may stand before or after the command.",
        "",
        *_options(GLOBAL),
    ]
    lines += ["", "## Commands"]
    for name in commands.NAMES:
        lines += _command(commands.load(name).COMMAND)
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {_cell(meaning)} |" for code, meaning in exit_codes()]
    lines += [
        "",
        "With several names, the code is that of the first failure; the others are dealt with all the same.",
        "",
    ]
    return "\n".join(lines) + "\n" + _SIGNALS


def _command(command: Command) -> list[str]:
    lines = ["", f"### `{command.name}`", "", sentence(command.summary), ""]
    lines += ["```", f"unikeel {command.name} {synopsis(command)}".rstrip(), "```", ""]
    if command.arguments or command.options:
        rows = [f"| `{argument.name}` | {_cell(argument.help)} |" for argument in command.arguments]
        lines += ["| argument or option | meaning |", "|---|---|", *rows, *_rows(command.options), ""]
    if command.details:
        lines += [command.details, ""]
    lines += [f"- `{text}`: {what}" for text, what in command.examples]
    return lines if lines[-1] else lines[:-1]


def _options(options: tuple[Option, ...]) -> list[str]:
    return ["| option | meaning |", "|---|---|", *_rows(options)]


def _rows(options: tuple[Option, ...]) -> list[str]:
    return [f"| `{written(option)}` | {_cell(described(option))} |" for option in options]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
