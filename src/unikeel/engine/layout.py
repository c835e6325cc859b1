"""Where everything of a state root is::

    ROOT/
      state.db            records (SQLite)
      owners/             one locked file per living process that works here
      images/             one OCI image layout
      snapshots/          block images: committed, and the containers' own
      pools/              what pools are made of, and those on files (:mod:`unikeel.snapshots.pools.registry`)
      boot/               the cache's objects, copies, locks
      containers/ID/      root/ (changes of a shared root), fs0/ fs1/ (bundles of file servers), console.log, monitor.log, plan.json, exit.json, timeline.json, control sockets
      facts/              what was found out about the host's monitors and OCI runtimes
      run/                keeper.sock, .lock, .start, .log; the OCI runtime's state, bundles, the sandboxes' empty root, what holds containers' network namespaces
                          (elsewhere with ``run_root``)

All directories are 0700: what is in them is for root alone.
"""

from __future__ import annotations

import os

from unikeel.errors import InvalidArgument, PermissionDenied, ResourceExhausted
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: In a container's directory: what its guest changed of a root that it shares with the host.
OWN_ROOT: Final = "root"
#: In a container's directory: the bundles of its file servers, of its root and of its volumes.
SERVERS: Final = ("fs0", "fs1")
_DIRECTORIES: Final = ("owners", "images", "snapshots", "boot", "containers", "facts")


class Layout(NamedTuple):
    """The paths of one state root. ``run`` holds what need not survive a reboot."""

    root: str
    run: str

    @property
    def database(self) -> str:
        return os.path.join(self.root, "state.db")

    @property
    def owners(self) -> str:
        return os.path.join(self.root, "owners")

    @property
    def images(self) -> str:
        return os.path.join(self.root, "images")

    @property
    def snapshots(self) -> str:
        return os.path.join(self.root, "snapshots")

    @property
    def pools(self) -> str:
        return os.path.join(self.root, "pools")

    @property
    def boot(self) -> str:
        return os.path.join(self.root, "boot")

    @property
    def facts(self) -> str:
        return os.path.join(self.root, "facts")

    @property
    def sandbox_root(self) -> str:
        return os.path.join(self.run, "sandbox-root")

    @property
    def runtime_state(self) -> str:
        return os.path.join(self.run, "oci")

    @property
    def trial(self) -> str:
        """The bundle of the sandbox that tries an OCI runtime out."""
        return self.bundle("trial")

    def container(self, ident: str) -> str:
        return os.path.join(self.root, "containers", ident)

    def namespace(self, ident: str) -> str:
        """What holds a container's own network namespace."""
        return os.path.join(self.run, "netns", ident)

    def bundle(self, ident: str) -> str:
        return os.path.join(self.run, "bundles", ident)


def daemon_directory(root: str, run_root: str) -> str:
    """The directory of the daemon's sockets: below ``run_root``; without one, of the default state root in ``/run/unikeel``, of another in its ``run``."""
    from unikeel.config import DEFAULT_RUN, defaults

    root = os.path.abspath(root)
    run = run_root or (DEFAULT_RUN if root == defaults().root else os.path.join(root, "run"))
    return os.path.join(os.path.abspath(run), "daemon")


def snapshot_socket(root: str, run_root: str, name: str) -> str:
    """Where the consumer of this name finds the snapshotter: beside the daemon's directory, whichever daemon serves it."""
    return os.path.join(os.path.dirname(daemon_directory(root, run_root)), "snapshots", f"{name}.sock")


def open_layout(root: str, run_root: str = "") -> Layout:
    """The state root at this path, made if it is missing.

    :param run_root: where sockets and sandboxes live; ``run`` in the state root if empty.
    :raise PermissionDenied: it cannot be made or entered. :raise ResourceExhausted: no space.
    """
    root = os.path.abspath(root)
    layout = Layout(root, os.path.abspath(run_root) if run_root else os.path.join(root, "run"))
    bundles = os.path.join(layout.run, "bundles")
    if os.path.exists(layout.facts) and os.path.exists(bundles):
        return layout
    try:
        os.makedirs(layout.root, mode=0o700, exist_ok=True)
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(layout.root, name), mode=0o700, exist_ok=True)
        os.makedirs(layout.run, mode=0o700, exist_ok=True)
        os.makedirs(bundles, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(layout.namespace("")), mode=0o700, exist_ok=True)
    except PermissionError as error:
        raise PermissionDenied(
            f"the state root {root} cannot be made: {error.strerror}", "run as root, or choose another with --root"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidArgument(f"the state root {root} cannot be made: {error.filename} is not a directory") from error
    except OSError as error:
        raise ResourceExhausted(f"the state root {root} cannot be made: {error.strerror}") from error
    return layout
