"""Our snapshotter as it is measured: a daemon with a state root of its own for each contender, so that none has another's snapshots in its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from unikeel.bench.snapshotter.plan import SIZE_MIB
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from lab.place import Place

#: containerd's name in the daemon's configuration.
SOCKET: Final = "containerd"
_MINUTE: Final = 60.0
#: As many as are wanted at once in a crowd.
SPARES: Final = 16
_AWAIT: Final = 'until [ -S "$1" ]; do sleep 0.2; done'


class Kind(NamedTuple):
    """How a contender is set up: the options of ``unikeel pool create`` (none: the store of every state root), and how many snapshots it has ready in advance."""

    pool: tuple[str, ...] = ()
    spares: int = 0


#: As large as the lab's own, and like it on files.
_THIN_POOL: Final = ("--size", "6GiB", "--metadata-size", "64MiB", "--sparse")
_FILE_POOL: Final = ("--type", "file", "--size", "16GiB", "--sparse")
KINDS: Final[Mapping[str, Kind]] = {
    "file": Kind(),
    "file-xfs": Kind(),
    "file-xfs-spare": Kind(spares=SPARES),
    "file-loop": Kind(_FILE_POOL),
    "thin": Kind(_THIN_POOL),
    "thin-spare": Kind(_THIN_POOL, SPARES),
}


def socket(name: str) -> str:
    """Where a contender of ours listens."""
    return f"/run/unikeel-{name}/snapshots/{SOCKET}.sock"


def records(name: str) -> str:
    """The record store of a contender's state root."""
    return f"/var/lib/unikeel/{name}/state.db"


def pool(name: str) -> str:
    """The device-mapper name of a contender's thin pool; empty: it has none."""
    kind = KINDS[name]
    return f"unikeel-{_pool(name)}" if kind.pool and "file" not in kind.pool else ""


def _pool(name: str) -> str:
    return f"bench-{name}"


def store(name: str) -> str:
    """What the store is called in a contender's state root."""
    return _pool(name) if KINDS[name].pool else "file"


def configuration(name: str) -> str:
    """The daemon's configuration file."""
    kind = KINDS[name]
    return (
        f'root = "/var/lib/unikeel/{name}"\nrun_root = "/run/unikeel-{name}"\n'
        f'[snapshotter]\nstore = "{store(name)}"\nsockets = "{SOCKET}"\nempty_size = "{SIZE_MIB}MiB"\n'
        f"spares = {kind.spares}\nspares_total = {kind.spares}\n"
    )


def plugin(name: str) -> str:
    """What containerd's configuration says about it."""
    return f'\n[proxy_plugins."{name}"]\n  type = "snapshot"\n  address = "{socket(name)}"\n'


def start(place: Place, name: str) -> None:
    """Make the pool, if it has one, and start the daemon. :raise LabError: it fails."""
    path = f"/etc/unikeel/{name}.toml"
    place.put(path, configuration(name).encode())
    environment = {"UNIKEEL_CONFIG": path}
    seconds = 2 * _MINUTE * place.slowness
    if KINDS[name].pool:
        argv = ["unikeel", "pool", "create", _pool(name), *KINDS[name].pool]
        place.run(argv, env=environment, timeout=seconds)
    # On a busy host it may need longer than the command waits for it.
    argv = ["unikeel", "daemon", "--only", "snapshotter", "--detach"]
    place.run(argv, env=environment, timeout=seconds, check=False)
    place.run(["sh", "-c", _AWAIT, "sh", socket(name)], timeout=seconds)
