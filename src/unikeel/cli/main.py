"""The entry point of ``unikeel``.

Start-up: a start of a guest has a budget of 80 ms for the interpreter and all imports, so this module finds the command by hand and imports
nothing that the command does not need. No argparse, pathlib, logging, asyncio, rich or shutil on the way to ``run``.
"""

import time

#: When our first line ran, in nanoseconds of the monotonic clock.
LOADED = time.monotonic_ns()

import gc  # noqa: E402 - the clock is read first
import os  # noqa: E402 - as above
import sys  # noqa: E402 - as above
from types import TracebackType  # noqa: E402 - as above


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while the imports below are done, or after :func:`entry` has returned: an end like any other, without a traceback."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet

#: Imports make objects that stay: looking through them for garbage, as after every 700th, costs a tenth of all imports and finds none.
_COLLECT_AFTER = 50_000
gc.set_threshold(_COLLECT_AFTER, 10, 10)

from collections.abc import Sequence  # noqa: E402 - as above

from unikeel.cli import commands, failures  # noqa: E402 - as above
from unikeel.cli.options import Argument, Command, Option, Parsed, parse  # noqa: E402 - as above
from unikeel.cli.session import Session  # noqa: E402 - as above

_TOP = Command(
    "",
    "",
    options=(Option(("-V", "--version"), "show the version"),),
    arguments=(Argument("COMMAND", "", 0, None),),
    stops=True,
)


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Never raises: an error is told on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = False
    try:
        if None in (sys.stdin, sys.stdout, sys.stderr):
            _fill_standard_streams()
        name, parsed, top = _find(words)
        debug = top.flag("debug") or (parsed is not None and parsed.flag("debug"))
        code = _run(name, parsed, top)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where every error becomes a sentence
        return failures.report(error, debug=debug)
    return code


def _fill_standard_streams() -> None:
    """We were started with a standard stream closed: have its number be /dev/null, or the next file that we open would get it, and with it
    what is meant for the user."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        continue
    os.close(fd)


def _find(words: list[str]) -> tuple[str, Parsed | None, Parsed]:
    """The command's name, its words parsed (``None``: only help is wanted), and the options before it."""
    top = parse(_TOP, words)
    name, rest = (top.operands[0], top.operands[1:]) if top.operands else ("", [])
    if name in commands.GROUPS:
        between = parse(_TOP, rest)
        for key, values in between.values.items():
            top.values[key] += values
        if not between.operands:
            return name, None, top
        name, rest = f"{name} {between.operands[0]}", between.operands[1:]
    elif top.flag("version"):
        name, rest = "version", []
    elif name == "help":
        top.values["help"].append(name)
        return " ".join(rest), None, top
    if not name:
        return "", None, top
    commands.check_known(name)
    if top.flag("help"):
        return name, None, top
    parsed = parse(commands.load(name).COMMAND, rest)
    return name, None if parsed.flag("help") else parsed, top


def _run(name: str, parsed: Parsed | None, top: Parsed) -> int:
    if parsed is None:
        from unikeel.cli.helping import show

        show(name)
        return 0 if top.flag("help") or name not in ("", *commands.GROUPS) else failures.USAGE
    from unikeel.cli.timing import process_start

    session = Session(
        root=parsed.text("root") or top.text("root"),
        config=parsed.text("config") or top.text("config"),
        debug=parsed.flag("debug") or top.flag("debug"),
        started=min(process_start(), LOADED),
        loaded=LOADED,
    )
    return commands.load(name).run(parsed, session)


if __name__ == "__main__":
    sys.exit(entry())
