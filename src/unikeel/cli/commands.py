"""Which commands there are; each is the module of its name, imported when it is called."""

from __future__ import annotations

import sys

from unikeel.cli.options import Command, Parsed
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from unikeel.cli.session import Session

#: Every command, in the order of help: first what one does most.
NAMES: Final = (
    "run",
    "create",
    "start",
    "ps",
    "logs",
    "stop",
    "kill",
    "wait",
    "rm",
    "inspect",
    "timeline",
    "image load",
    "image pull",
    "image ls",
    "image inspect",
    "image rm",
    "image build",
    "boot ls",
    "boot gc",
    "snapshot ls",
    "snapshot inspect",
    "snapshot usage",
    "pool create",
    "pool status",
    "pool grow",
    "pool check",
    "pool destroy",
    "bench list",
    "bench run",
    "bench report",
    "bench compare",
    "doctor",
    "daemon",
    "snapshotter",
    "install containerd",
    "config",
    "reconcile",
    "completion",
    "version",
)
#: First words of commands of two words.
GROUPS: Final = {
    "image": "images of the store",
    "boot": "boot files that are kept",
    "snapshot": "snapshots of images and containers",
    "pool": "room for snapshots",
    "bench": "what starts cost, measured",
    "install": "other programs that run guests by unikeel",
}
#: What only shell completion calls, and its module; in no list.
HIDDEN: Final = {"__complete": "complete"}


class Module(Protocol):
    """What a command's module has."""

    COMMAND: Command

    def run(self, parsed: Parsed, session: Session) -> int:
        """Do it; the exit code."""


def load(name: str) -> Module:
    """The module of a command that is in :data:`NAMES` or :data:`HIDDEN`."""
    full = "unikeel.cli." + HIDDEN.get(name, name.replace(" ", "_"))
    __import__(full)  # importlib is a module more
    module: Module = sys.modules[full]
    return module


def members(group: str) -> tuple[str, ...]:
    """The second words of a group's commands."""
    return tuple(name.partition(" ")[2] for name in NAMES if name.startswith(group + " "))


def first_words() -> tuple[str, ...]:
    """All that can be the first word of a command."""
    return tuple(dict.fromkeys(name.partition(" ")[0] for name in NAMES))


def check_known(name: str) -> None:
    """:raise InvalidArgument: there is no such command; the hint has the nearest spelling."""
    if name in NAMES or name in HIDDEN:
        return
    from unikeel.model.names import nearest, quote

    group, _, word = name.partition(" ")
    known = [f"{group} {member}" for member in members(group)] if group in GROUPS else first_words()
    near = nearest(name, known)
    if not near and word:
        near = next((f"{group} {member}" for member in members(group) if member == nearest(word, members(group))), "")
    hint = f"did you mean `unikeel {near}`?" if near else "`unikeel --help` shows all commands"
    raise InvalidArgument(f"there is no command {quote(name)}", hint)
