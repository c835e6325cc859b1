"""A guest that uses more memory than its sandbox may: what containerd is told then, wherever that is."""

from __future__ import annotations

from typing import Final

from lab.place import Place
from lab_support import archives
from lab_support.asking import ask
from lab_support.events import Events

RUNTIME: Final = "io.containerd.unikeel.v2"
GLUTTON: Final = "lab.test/glutton:1"
_KILL: Final = 9
_MIB: Final = 1 << 20
#: The guest's, by which the monitor is started, and the lower one that the cgroup has by the time the guest runs: less than it writes to, more than the monitor has.
_GUEST, _LIMIT = 512 * _MIB, 64 * _MIB


def write(path: str) -> str:
    """Write the image's archive; its path."""
    return archives.write(archives.guest(GLUTTON, boot=archives.glutton(), command=("eat",)), path)


def die(place: Place, snapshotter: str, ident: str) -> None:
    """Run a task that dies of its limit, with the events in order. The image must be there. It is gone afterwards."""
    words = ["--runtime", RUNTIME, "--snapshotter", snapshotter, "--memory-limit", str(_GUEST)]
    place.ctr("containers", "create", *words, GLUTTON, ident)
    with Events(place) as events:
        ask(place, "create", ident, snapshotter)
        ask(place, "update", ident, {"memory": {"limit": _LIMIT}})
        ask(place, "start", ident)
        code, *_ = ask(place, "wait", ident)
        assert code == 128 + _KILL
        ask(place, "delete", ident)
        assert events.await_topic(ident, "delete") == ["create", "start", "oom", "exit", "delete"]
        assert events.of(ident)[3].body["exit_status"] == 128 + _KILL
    place.ctr("containers", "rm", ident)
