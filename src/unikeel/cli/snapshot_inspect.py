"""``unikeel snapshot inspect``: everything that is known of snapshots."""

from __future__ import annotations

from unikeel.cli.options import JSON, SNAPSHOTS, Argument, Command, Parsed
from unikeel.cli.output import json
from unikeel.cli.snapshot_ls import NARROWING, described
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.pooling import Pools
    from unikeel.cli.session import Session
    from unikeel.snapshots.catalog import Entry

COMMAND = Command(
    "snapshot inspect",
    "print everything that is known of snapshots, as JSON",
    options=(*NARROWING, JSON),
    arguments=(Argument("SNAPSHOT", "key or name", 1, None, SNAPSHOTS),),
    examples=(("unikeel snapshot inspect --consumer engine sha256:…", "where its content is, and how it is mounted"),),
    details="A list with one object for each snapshot of that name, whichever consumer's: the keys of `snapshot ls`, id, usage (size, inodes), disk (path, format, backing, "
    "read_only), mounts (type, source, options; none of a committed one) and problem (why its content cannot be told of, or empty). "
    "--json changes nothing: it is accepted because every listing has it.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Print a list of objects."""
    from unikeel.cli.pooling import looking

    with looking(session) as found:
        json([_whole(found, entry) for name in parsed.operands for entry in found.named(name, parsed)])
    return 0


def _whole(pools: Pools, entry: Entry) -> dict[str, object]:
    from unikeel.errors import UnikeelError
    from unikeel.snapshots.contract import Kind

    whole = {**described(entry), "id": entry.id, "usage": None, "disk": None, "mounts": [], "problem": ""}
    name = entry.info.name
    try:
        store = pools.store(entry)
        whole["usage"] = store.usage(name)._asdict()
        disk = store.disk(name)
        whole["disk"] = {
            "path": disk.path,
            "format": disk.format,
            "backing": disk.backing,
            "read_only": disk.read_only,
        }
        if entry.info.kind is not Kind.COMMITTED:
            mounts = store.mounts(name)
            whole["mounts"] = [{**mount._asdict(), "options": list(mount.options)} for mount in mounts]
    except UnikeelError as error:
        whole["problem"] = str(error)
    return whole
