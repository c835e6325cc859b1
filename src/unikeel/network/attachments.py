"""Containers' own network namespaces, connected by CNI plugins: made for each run, recorded before anything is made, and taken back after it.

A namespace is held by a mount on a file, so that plugins find it when they undo their work, whoever was killed meanwhile. What cannot be undone keeps its record, and the next
command tries again; but where the plugins refused to begin with, what they say to being asked to undo it is no news.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

from unikeel.errors import FailedPrecondition, NotFound, UnikeelError
from unikeel.kernel import netns
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Any, Final
from unikeel.network import conflist, plugins
from unikeel.network.ports import Port
from unikeel.records.database import Database
from unikeel.records.failpoint import failpoint
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE network_attachments (
        container TEXT PRIMARY KEY, name TEXT NOT NULL, namespace TEXT NOT NULL, configuration TEXT NOT NULL, directories TEXT NOT NULL,
        ports TEXT NOT NULL, result TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID
    """,
)
_COLUMNS: Final = "container, name, namespace, configuration, directories, ports, result"


class Attachment(NamedTuple):
    """A container that is connected, or was to be. ``result`` is empty until all plugins have answered."""

    container: str
    #: What messages call it.
    name: str
    namespace: str
    configuration: str
    directories: str
    ports: tuple[Port, ...]
    result: str = ""


class Attachments:
    """The attachments of one state root."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("network", _SCHEMA)

    def make(self, wanted: Attachment) -> tuple[OwnedFd, dict[str, Any]]:
        """Make a namespace and connect it: an open descriptor of it, and what the plugins answered.

        What an earlier run has left is taken away first. If this raises, :meth:`release` takes back what there is. Raises as
        :func:`unikeel.network.plugins.add`.
        """
        self.release(wanted.container)
        ports = json.dumps([port._asdict() for port in wanted.ports])
        self._database.execute(
            f"INSERT INTO network_attachments ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, '')",  # noqa: S608 - our own column names
            (*wanted[:5], ports),
        )
        failpoint("network.recorded")
        os.makedirs(os.path.dirname(wanted.namespace), mode=0o700, exist_ok=True)
        netns.make(wanted.namespace)
        failpoint("network.namespace")
        namespace = netns.open_network(wanted.namespace)
        try:
            netns.within(namespace, netns.loopback_up)
            result = plugins.add(conflist.parse(wanted.configuration, wanted.name), _subject(wanted))
        except BaseException:
            namespace.close()
            raise
        failpoint("network.added")
        self._database.execute(
            "UPDATE network_attachments SET result = ? WHERE container = ?", (json.dumps(result), wanted.container)
        )
        failpoint("network.connected")
        return namespace, result

    def release(self, container: str) -> None:
        """Undo a container's attachment, however far it had come; nothing happens if it has none. Raises as :func:`unikeel.network.plugins.remove`."""
        found = self._find(container)
        if found is None:
            return
        result = json.loads(found.result) if found.result else None
        try:
            plugins.remove(conflist.parse(found.configuration, found.name), _subject(found), result)
        except FailedPrecondition:
            if result is not None:
                raise
        failpoint("network.deleted")
        netns.unmake(found.namespace)
        failpoint("network.unmade")
        self._database.execute("DELETE FROM network_attachments WHERE container = ?", (container,))

    def release_or_say(self, container: str, notice: Callable[[str], None]) -> None:
        """The same, where a failure must not keep the caller from going on: it is said, and the record stays."""
        try:
            self.release(container)
        except UnikeelError as error:
            found = self._find(container)
            name = found.name if found else container
            notice(f"the network of {name} is not released yet, the next command tries again: {error}")

    def _find(self, container: str) -> Attachment | None:
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM network_attachments WHERE container = ?",  # noqa: S608 - our own column names
            (container,),
        )
        if not rows:
            return None
        words = [str(value) for value in rows[0]]
        ports = tuple(Port(**port) for port in json.loads(words[5]))
        return Attachment(words[0], words[1], words[2], words[3], words[4], ports, words[6])


def _subject(attachment: Attachment) -> plugins.Subject:
    """After a restart of the host the namespace is gone."""
    namespace = ""
    with contextlib.suppress(NotFound, UnikeelError), netns.open_network(attachment.namespace):
        namespace = attachment.namespace
    return plugins.Subject(attachment.container, namespace, attachment.directories, attachment.ports)


__all__ = ["Attachment", "Attachments"]
