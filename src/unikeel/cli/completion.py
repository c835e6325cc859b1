"""``unikeel completion``: the shells' completion scripts."""

from __future__ import annotations

from unikeel.cli.completing import SCRIPTS
from unikeel.cli.options import Argument, Command, Parsed
from unikeel.cli.output import write
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "completion",
    "print a shell's completion script",
    arguments=(Argument("SHELL", "bash, zsh or fish"),),
    examples=(
        ("source <(unikeel completion bash)", "in ~/.bashrc"),
        ("unikeel completion fish | source", "in ~/.config/fish/config.fish"),
    ),
    details="Commands, options, files, names of containers and of images are completed.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print it. :raise InvalidArgument: no such shell."""
    del session
    shell = parsed.operands[0]
    if shell not in SCRIPTS:
        from unikeel.model.names import quote, unknown_hint

        raise InvalidArgument(f"there is no completion for {quote(shell)}", unknown_hint(shell, SCRIPTS))
    write(SCRIPTS[shell])
    return 0
