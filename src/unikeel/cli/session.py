"""What every command gets: the options of all commands, and the way to the engine."""

from __future__ import annotations

import os

from unikeel.cli.failures import say
from unikeel.lean import TYPE_CHECKING
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.engine.engine import Engine


class Session(NamedTuple):
    """One call of the program. ``started`` and ``loaded`` are on the monotonic clock: the process's start, our first line."""

    root: str = ""
    config: str = ""
    debug: bool = False
    started: int = 0
    loaded: int = 0

    def engine(self) -> Engine:
        """Open the engine; its notices go to standard error."""
        from unikeel.engine.engine import Engine

        return Engine(self.root, config=self.config, notice=say)

    def configuration(self) -> Config:
        """The configuration, without opening the state root. :raise ConfigError: it is wrong."""
        from unikeel import config

        return config.load(self.config)

    def state_root(self, config: Config) -> str:
        """The state root that the engine would open."""
        return os.path.abspath(self.root or os.environ.get("UNIKEEL_ROOT", "") or config.root)
