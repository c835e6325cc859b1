"""The bench's own state root: made for a run, filled with the sample images, and gone afterwards, whatever happened.

Shared views stay with the keeper for the whole run (``keeper.view_idle``), as they do while a container of the image runs.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import unikeel
from unikeel.bench import contents
from unikeel.bench.environment import runtime_name
from unikeel.bench.quiet import Quiet
from unikeel.engine.engine import Engine
from unikeel.errors import NotFound, UnikeelError
from unikeel.images.manifests import Image
from unikeel.kernel.pidfd import open_pid, wait_exit

STRATEGIES = ("cache", "shared-view", "view", "copy")
SNAPSHOTTER = "file"
_CONFIG = "[keeper]\nview_idle = 86400\n"
_SECONDS = 180.0
_LEAVE_SECONDS = 20.0


class Stage:
    """One state root with the images named. A context manager: leaving it takes everything away.

    :param samples: the directory that ``make samples`` fills. :param parent: where the state root is made.
    :param patience: seconds that a round may wait for a quiet host, on average.
    :raise NotFound: an image is not there.
    """

    def __init__(self, samples: str, parent: str, images: Sequence[str], patience: float = 0) -> None:
        self.quiet = Quiet(patience)
        self._archives = {name: os.path.join(samples, f"{name}.tar") for name in images}
        for name, path in self._archives.items():
            if not os.path.exists(path):
                raise NotFound(f"the sample image {name} is missing ({path})", "run `make samples`")
        compileall.compile_dir(os.path.dirname(unikeel.__file__), quiet=2)
        self.notices: list[str] = []
        self.expected: dict[str, dict[str, str]] = {}
        self._directory = tempfile.mkdtemp(prefix="unikeel-bench-", dir=parent)
        self.root = os.path.join(self._directory, "root")
        self.config = os.path.join(self._directory, "config.toml")
        try:
            with open(self.config, "w", encoding="ascii") as file:
                file.write(_CONFIG)
            self.engine = Engine(
                self.root, config=self.config, notice=self.notices.append, environment=self.environment()
            )
        except BaseException:
            shutil.rmtree(self._directory)
            raise
        self.runtime = runtime_name(self.engine.services)

    def load(self, name: str) -> None:
        """Take an image into the store, and find out what its boot files are. :raise UnikeelError: it cannot be loaded."""
        [image] = self.engine.load(self._archives[name], name)
        self.expected[name] = contents.boot_files(self._archives[name], boot_paths(image))

    def boot_contents(self, name: str) -> list[bytes]:
        """The boot files of an image that was loaded from an archive; of others none."""
        if name not in self._archives:
            return []
        return list(contents.read(self._archives[name], boot_paths(self.engine.image(name))).values())

    def parent(self, name: str) -> str:
        """The committed snapshot of an image that was loaded. :raise UnikeelError: it cannot be told."""
        from unikeel.engine.unpacking import ensure_unpacked

        return ensure_unpacked(self.engine.services, self.engine.image(name), None)

    # -- commands ------------------------------------------------------------------------------------------------

    @staticmethod
    def environment() -> dict[str, str]:
        """The environment of commands: ours, without what would change how Python or unikeel work."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UNIKEEL_"))}

    def python(self, module: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run a module's ``main(argv)`` in a new interpreter, without what ``python -m`` would import."""
        code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
        return run([sys.executable, "-c", code, *arguments], self.environment())

    def unikeel(
        self, arguments: Sequence[str], *interpreter: str, program: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command line as a user does, its timeline beginning now.

        :param interpreter: options of the interpreter. :param program: what is run in place of ``unikeel``.
        """
        argv = [*(program or command(*interpreter)), "--root", self.root, "--config", self.config, *arguments]
        environment = self.environment()
        return run(argv, environment | {"UNIKEEL_START_NS": str(time.monotonic_ns())})

    def interpreter_alone(self) -> float:
        """Milliseconds from the spawn of an interpreter that does nothing to its end."""
        start = time.monotonic_ns()
        run([sys.executable, "-I", "-c", "pass"], self.environment())
        return (time.monotonic_ns() - start) / 1e6

    def remove_containers(self) -> None:
        """End and remove every container of the state root. :raise UnikeelError: the last one's failure, after all were tried."""
        failure: UnikeelError | None = None
        for container in self.engine.containers(everything=True):
            try:
                container.remove(force=True)
            except NotFound:
                continue
            except UnikeelError as error:
                failure = error
        if failure is not None:
            raise failure

    def forget_boot_files(self) -> None:
        """Nothing cached, nothing mounted: as if no container of any image had ever started."""
        self.engine.collect_boot_files(everything=True)

    # -- the end -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.quietly(self.remove_containers)
        self.quietly(self.forget_boot_files)
        self.quietly(self._dismiss_keeper)
        left = [container.name for container in self.engine.containers(everything=True)]
        self.engine.close()
        left += mounts_under(self._directory)
        if left:
            self.notices.append(f"the bench left things behind in {self._directory}: {', '.join(left)}")
        else:
            shutil.rmtree(self._directory)

    def quietly(self, action: Callable[[], None]) -> None:
        """Do it; a failure becomes a notice, so that what comes after it is done, too."""
        try:
            action()
        except (UnikeelError, OSError) as error:
            self.notices.append(str(error))

    def keeper(self) -> int | None:
        """The keeper's process; None if there is none."""
        client = self.engine.services.keeper
        if not client.lives():
            return None
        pid = client.connection().call({"op": "hello"}).get("pid")
        return pid if isinstance(pid, int) else None

    def _dismiss_keeper(self) -> None:
        """Wait until the keeper has gone, which it does when it holds nothing and nobody is connected."""
        pid = self.keeper()
        self.engine.services.keeper.disconnect()
        if pid is None:
            return
        try:
            fd = open_pid(pid)
        except (OSError, UnikeelError):
            return
        with fd:
            if not wait_exit(fd, _LEAVE_SECONDS):
                self.notices.append(f"the keeper (process {pid}) is still there after {_LEAVE_SECONDS:.0f} s")


def boot_paths(image: Image) -> dict[str, str]:
    """Role → path of an image's boot files, by its annotations."""
    roles = {"kernel": "com.urunc.unikernel.binary", "initrd": "com.urunc.unikernel.initrd"}
    return {role: image.annotations[name] for role, name in roles.items() if image.annotations.get(name)}


def command(*interpreter: str) -> list[str]:
    """The ``unikeel`` program beside the interpreter; where there is none, its entry point. With options, the interpreter is named."""
    path = os.path.join(os.path.dirname(sys.executable), "unikeel")
    if not os.access(path, os.X_OK):
        code = "import sys; from unikeel.cli.main import entry; sys.exit(entry())"
        return [sys.executable, *interpreter, "-c", code]
    return [sys.executable, *interpreter, path] if interpreter else [path]


def run(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, its output caught. A time-out becomes an exit status of 124 and a sentence."""
    try:
        return subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, b"", b"it did not end in time")


def mounts_under(directory: str) -> list[str]:
    """Mount points below a directory."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    return [point for point in points if point.startswith(directory + "/")]
