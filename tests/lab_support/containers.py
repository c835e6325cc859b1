"""Containers that no ``ctr`` would make: with a specification that was changed, on a snapshot of one's own choosing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from lab_support.stage import Setting
from lab_support.world import HELLO
from unikeel.containerd.records import Exit, Packed, Stdio
from unikeel.errors import UnikeelError

Change = Callable[[dict[str, Any]], None]


def create(
    setting: Setting, ident: str, *, change: Change | None = None, snapshot: str = "", image: str = HELLO
) -> None:
    """A container as ``ctr`` makes it, but with its specification changed, or with another snapshot."""
    world, template = setting.world, setting.new("template")
    words = world.run_words(template, "exit=3", image=image, snapshotter=setting.snapshotter)[1:]
    world.ctr("containers", "create", *words)
    record = world.api(lambda containerd: containerd.containers.get(template))
    assert record.spec is not None
    spec = json.loads(record.spec.value)
    if change is not None:
        change(spec)
    if not snapshot:
        world.ctr(
            "snapshots", "--snapshotter", setting.snapshotter, "prepare", ident, parent_of(setting, record.snapshot_key)
        )
    changed = record._replace(
        id=ident, spec=Packed(record.spec.type_url, json.dumps(spec).encode()), snapshot_key=snapshot or ident
    )
    world.api(lambda containerd: containerd.containers.create(changed))
    world.ctr("containers", "rm", template)


def parent_of(setting: Setting, key: str) -> str:
    """The committed snapshot that one was made from."""
    return setting.world.api(lambda containerd: containerd.snapshots(setting.snapshotter).stat(key)).parent


def run(setting: Setting, ident: str) -> tuple[Exit, str]:
    """Run a container's task to its end: how it ended, and what it wrote.

    :raise unikeel.errors.UnikeelError: what the task's creation or start was refused with.
    """
    world = setting.world

    uri = f"file://{world.log(ident)}"

    async def use(containerd: Any) -> Exit:
        record = await containerd.containers.get(ident)
        mounts = await containerd.snapshots(setting.snapshotter).mounts(record.snapshot_key)
        await containerd.tasks.create(ident, mounts, Stdio("", uri, uri))
        try:
            await containerd.tasks.start(ident)
            return await containerd.tasks.wait(ident, timeout=60)  # type: ignore[no-any-return]
        finally:
            await containerd.tasks.delete(ident)

    return world.api(use), world.output(ident)


class Outcome(NamedTuple):
    """How running a container went: the guest's exit code and output, or what it was refused with."""

    status: int | None
    output: str
    refusal: str


def attempt(setting: Setting, ident: str) -> Outcome:
    """Run a container's task, if that is allowed. A refusal is a sentence."""
    try:
        ended, output = run(setting, ident)
    except UnikeelError as error:
        refusal = str(error)
    else:
        return Outcome(ended.status, output, "")
    assert "Traceback" not in refusal
    assert refusal.count("\n") <= 1  # containerd's own words come behind a line that the launcher printed
    assert 10 < len(refusal) < 8192
    return Outcome(None, "", refusal)
