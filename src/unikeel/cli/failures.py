"""From an exception to one sentence on standard error and an exit code."""

from __future__ import annotations

import os
import sys

from unikeel.errors import TABLE, Internal, ResourceExhausted, UnikeelError, mapping, of_system

#: What is wrong is the command line.
USAGE = 2
#: As a shell has it for a program that a closed pipe ended.
BROKEN_PIPE = 141


class Interrupted(BaseException):
    """A signal that asks us to end came; like KeyboardInterrupt, but it says which. Not an Exception: nobody shall swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def say(sentence: str) -> None:
    """One line on standard error, in our name; what does not print is shown as ``?``. A closed standard error is no failure."""
    line = "".join(char if char.isprintable() else "?" for char in sentence.replace("\n", " "))
    try:
        print(f"unikeel: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def report(error: BaseException, *, debug: bool) -> int:
    """Tell the user what failed; the exit code. With ``debug`` also where in the program."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Interrupted):
        return 128 + error.number
    if isinstance(error, BrokenPipeError):
        silence_output()
        return BROKEN_PIPE
    known = error if isinstance(error, UnikeelError) else _translated(error)
    say(str(known))
    if isinstance(error, OSError):
        silence_output()  # what is left in the buffer would fail once more, at the interpreter's end
    return mapping(known).exit


def _translated(error: BaseException) -> UnikeelError:
    """Somebody else's exception as one of ours."""
    if isinstance(error, MemoryError):
        return ResourceExhausted("there is not enough memory")
    if isinstance(error, OSError):
        return of_system(error)
    if type(error).__module__ == "sqlite3":
        text = f"the records of the state root cannot be used: {error}"
        return ResourceExhausted(text) if "full" in str(error) else Internal(text, "another --root may work")
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return Internal(f"internal error: {text[:400]}", "please report it, with what --debug shows")


def silence_output() -> None:
    """Our output cannot be written: have the interpreter's last flush go nowhere instead of failing."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, 1)
    finally:
        os.close(null)


def exit_codes() -> list[tuple[int, str]]:
    """Every exit code and its meaning, for the documentation."""
    rows = {
        0: "it was done; for `run` and `start -a`: the guest ended with 0",
        1: "`doctor`: guests cannot run on this host",
        125: "the monitor failed, not its guest (`run`, `start -a`, `wait`)",
        130: "ended by Ctrl-C (SIGINT); 128 and the signal's number for others",
        BROKEN_PIPE: "nobody read our output any more",
        255: "how the guest ended is unknown: the keeper had been killed",
    }
    for cls, row in TABLE.items():
        doc = (
            (cls.__doc__ or "").splitlines()[0].rstrip(".")
            if cls is not UnikeelError
            else "the host failed in some other way"
        )
        rows[row.exit] = f"{rows[row.exit]}; {_lower(doc)}" if row.exit in rows else _lower(doc)
    return sorted(rows.items())


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
