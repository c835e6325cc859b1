"""What a check tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from unikeel.errors import UnikeelError
from unikeel.values import NamedTuple


class Level(Enum):
    """How grave a finding is."""

    OK = "ok"
    #: Guests run, but something is slower, or one feature is missing.
    WARNING = "warning"
    #: No guest can run.
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line of ``doctor``: a stable key, how grave, what was found, and what mends it (empty if it is fine)."""

    check: str
    level: Level
    message: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """As ``doctor --json`` prints it."""
        return {"check": self.check, "level": self.level.value, "message": self.message, "mend": self.mend}


def attempt(check: str, level: Level, mend: str, trial: Callable[[], str]) -> Finding:
    """Try something: fine with what it returns, or of ``level`` with the reason.

    :param mend: used where the error has no hint of its own.
    """
    try:
        return Finding(check, Level.OK, trial())
    except UnikeelError as error:
        return Finding(check, level, error.message, error.hint or mend)
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return Finding(check, level, where + (error.strerror or str(error)), mend)


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether guests can run: there is no problem, warnings aside."""
    return all(finding.level is not Level.PROBLEM for finding in findings)
