"""A command of its own, for tests that need many at once, or that kill one: ``engine_child.py ROOT STEP…``.

Steps: ``open`` (nothing but opening the engine), ``create=NAME``, ``start=NAME``, ``ready=NAME`` (start, and wait for the guest's first output),
``wait=NAME``, ``follow=NAME``, ``stop=NAME``, ``remove=NAME``, ``force=NAME`` (remove by force), ``pause`` (read a line from stdin), ``say=TEXT``. What is
created takes ``strategy=``, ``args=`` (separated by commas), ``net=``, ``image=``, ``rm=``, ``sandbox=`` before it. Notices and errors come on
stdout, one a line, as does the id of what is created and the exit code that was waited for.
"""

from __future__ import annotations

import sys

import unikeel


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Run:
    def __init__(self, engine: unikeel.Engine) -> None:
        self.engine = engine
        self.options = unikeel.Options(args=("wait",), network="none")
        self.image = "hello"

    def step(self, text: str) -> None:
        name, _, value = text.partition("=")
        if name in ("strategy", "args", "net", "image", "rm", "sandbox"):
            self._option(name, value)
        elif name == "create":
            container = self.engine.create(self.image, self.options._replace(name=value))
            _say(f"id {container.id}")
        elif name == "pause":
            _say("paused")
            sys.stdin.readline()
        elif name == "say":
            _say(value)
        elif name != "open":
            self._act(name, self.engine.container(value))

    def _option(self, name: str, value: str) -> None:
        if name == "image":
            self.image = value
        elif name == "args":
            self.options = self.options._replace(args=tuple(value.split(",")))
        elif name == "net":
            self.options = self.options._replace(network=value)
        elif name == "strategy":
            self.options = self.options._replace(boot_files=value)
        elif name == "rm":
            self.options = self.options._replace(auto_remove=value == "1")
        else:
            self.options = self.options._replace(sandbox=value == "1")

    def _act(self, name: str, container: unikeel.Container) -> None:
        if name == "start":
            container.start()
        elif name == "ready":
            container.start(ready="first-output")
        elif name == "wait":
            _say(f"exit {container.wait()}")
        elif name == "stop":
            _say(f"exit {container.stop(0)}")
        elif name == "follow":
            for _ in container.follow():
                pass
        elif name in ("remove", "force"):
            container.remove(force=name == "force")
        else:
            raise ValueError(name)


def main() -> None:
    """Do the steps; an error ends it with status 1."""
    try:
        with unikeel.Engine(sys.argv[1], notice=lambda text: _say(f"notice {text}")) as engine:
            run = _Run(engine)
            for text in sys.argv[2:]:
                run.step(text)
    except unikeel.UnikeelError as error:
        _say(f"error {error}")
        sys.exit(1)


main()
