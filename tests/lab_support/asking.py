"""Questions to containerd's own interface, asked by a process inside: the one way in a virtual machine, whose sockets cannot be reached from here."""

from __future__ import annotations

import json
from typing import Any, Final

from lab.place import Place
from lab_support.waiting import PATIENCE

_PYTHON: Final = "/opt/unikeel/bin/python"
#: Takes a list of ``[method, container, argument…]``, and prints a line of ``[answer, error, message]`` for each.
_PROGRAM: Final = """
import asyncio, json, sys

from unikeel.containerd.client import Containerd
from unikeel.containerd.records import Packed
from unikeel.errors import UnikeelError

_OCI = "types.containerd.io/opencontainers/runtime-spec/1/"


async def ask(containerd, method, ident, *words):
    tasks = containerd.tasks
    if method == "create":  # with the container's snapshot in a snapshotter
        return await tasks.create(ident, await containerd.snapshots(words[0]).mounts(ident), timeout=600)
    if method == "update":
        return await tasks.update(ident, Packed(_OCI + "LinuxResources", json.dumps(words[0]).encode()))
    if method == "exec":
        return await tasks.exec(ident, "another", Packed(_OCI + "Process", json.dumps(words[0]).encode()))
    return await getattr(tasks, method)(ident, *words, timeout=600)


async def main():
    async with Containerd() as containerd:
        for question in json.loads(sys.argv[1]):
            try:
                print(json.dumps([await ask(containerd, *question), "", ""]))
            except UnikeelError as error:
                print(json.dumps([None, type(error).__name__, error.message]))


asyncio.run(main())
"""


class Refused(Exception):
    """containerd answered with an error: the class of our own that stands for it, and its sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


def ask(place: Place, method: str, ident: str, *words: object) -> Any:
    """One call of the task service, by its name in :class:`unikeel.containerd.tasks.Tasks`; its answer. :raise Refused: containerd's error."""
    question = json.dumps([[method, ident, *words]])
    done = place.run(
        [_PYTHON, "-c", _PROGRAM, question], env={"PYTHONPATH": "/unikeel/src"}, timeout=PATIENCE * place.slowness
    )
    answer, kind, message = json.loads(done.stdout)
    if kind:
        raise Refused(kind, message)
    return answer
