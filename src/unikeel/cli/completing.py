"""Shell completion: the shells ask ``unikeel __complete``, which answers from the commands' tables.

One answer for all shells: a candidate a line. The line ``:files`` or ``:directories`` asks the shell to offer those instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unikeel.cli import commands
from unikeel.cli.options import (
    CONTAINERS,
    DIRECTORIES,
    FILES,
    GLOBAL,
    IMAGES,
    POOLS,
    SNAPSHOTS,
    Argument,
    Command,
    Option,
)
from unikeel.lean import Final

#: Names of a kind (:data:`CONTAINERS`, :data:`IMAGES`, :data:`POOLS` or :data:`SNAPSHOTS`) in a state root, by a configuration file; both may be empty.
Lookup = Callable[[str, str, str], list[str]]

_BASH: Final = """# unikeel completion for bash: source <(unikeel completion bash)
_unikeel() {
    local cur=${COMP_WORDS[COMP_CWORD]} line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
            :directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
            *) COMPREPLY+=("$line") ;;
        esac
    done < <(unikeel __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _unikeel unikeel
"""
_ZSH: Final = """#compdef unikeel
# unikeel completion for zsh: source <(unikeel completion zsh)
_unikeel() {
    local line
    local -a found
    for line in ${(f)"$(unikeel __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        case $line in
            :files) _files ;;
            :directories) _files -/ ;;
            *) found+=("$line") ;;
        esac
    done
    (( $#found )) && compadd -a found
}
compdef _unikeel unikeel
"""
_FISH: Final = """# unikeel completion for fish: unikeel completion fish | source
function __unikeel_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (unikeel __complete -- $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c unikeel -f -a '(__unikeel_complete)'
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def answer(words: Sequence[str], lookup: Lookup) -> list[str]:
    """What can stand in place of the last word, which is unfinished (and may be empty)."""
    before, last = list(words[:-1]), words[-1] if words else ""
    if last == "=":
        before, last = [*before, last], ""
    # bash takes --name=value apart at the "=".
    before = [word for index, word in enumerate(before) if word != "=" or not before[index - 1].startswith("--")]
    state = _State(lookup)
    for word in before:
        state.take(word)
    return state.candidates(last)


class _State:
    """What was read of a command line, word by word."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._name = ""
        self._command: Command | None = None
        self._pending: Option | None = None
        self._operands = 0
        self._ended = False
        self._globals = {"root": "", "config": ""}

    def _options(self) -> tuple[Option, ...]:
        return (*(self._command.options if self._command else ()), *GLOBAL)

    def take(self, word: str) -> None:
        """One finished word."""
        if self._pending is not None:
            if self._pending.key in self._globals:
                self._globals[self._pending.key] = word
            self._pending = None
        elif word.startswith("-") and not self._ended:
            self._option(word)
        elif self._command is None:
            self._name = f"{self._name} {word}".strip()
            if self._name in commands.NAMES:
                self._command = commands.load(self._name).COMMAND
        else:
            self._operands += 1
            self._ended = self._ended or self._command.stops

    def _option(self, word: str) -> None:
        if word == "--":
            self._ended = True
            return
        name, equals, value = word.partition("=")
        option = next((option for option in self._options() if name in option.names), None)
        if option is None or not option.value:
            return
        if not equals:
            self._pending = option
        elif option.key in self._globals:
            self._globals[option.key] = value

    def candidates(self, last: str) -> list[str]:
        """All that begin with ``last``."""
        if self._pending is not None:
            return self._values(self._pending.choices, self._pending.complete, last)
        if last.startswith("-") and not self._ended:
            found = [name for option in self._options() for name in option.names if name.startswith("--")]
            return sorted(name for name in found if name.startswith(last))
        if self._command is None:
            known = commands.members(self._name) if self._name in commands.GROUPS else ()
            known = known if self._name else commands.first_words()
            return [word for word in known if word.startswith(last)]
        argument = self._argument(self._command)
        return self._values((), argument.complete, last) if argument else []

    def _argument(self, command: Command) -> Argument | None:
        if not command.arguments:
            return None
        index = min(self._operands, len(command.arguments) - 1)
        argument = command.arguments[index]
        return argument if self._operands == index or argument.most is None else None

    def _values(self, choices: Sequence[str], kind: str, last: str) -> list[str]:
        if kind in (FILES, DIRECTORIES):
            return [f":{kind}"]
        if kind in (CONTAINERS, IMAGES, POOLS, SNAPSHOTS):
            choices = self._lookup(kind, self._globals["root"], self._globals["config"])
        return [choice for choice in choices if choice.startswith(last)]
