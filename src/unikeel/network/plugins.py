"""Running CNI's plugins: ADD in the order of the list, DEL in the reverse (the CNI specification 1.0.0, section 2)."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from unikeel.errors import FailedPrecondition, InvalidArgument, Unavailable, UnikeelError
from unikeel.kernel.memfd import sealed_bytes
from unikeel.kernel.paths import PROGRAM_DIRECTORIES
from unikeel.kernel.paths import find_program as search
from unikeel.kernel.process import spawn
from unikeel.lean import Any, Final
from unikeel.network import conflist
from unikeel.network.conflist import Network
from unikeel.network.ports import Port
from unikeel.values import NamedTuple

#: What the interface in a container's namespace is called.
INTERFACE: Final = "eth0"
_SECONDS: Final = 60.0
_LONGEST: Final = 1 << 20


class Subject(NamedTuple):
    """Whom a network is for. An empty ``namespace``: it is gone. ``directories``: where plugins are, separated by colons."""

    container: str
    namespace: str
    directories: str
    ports: tuple[Port, ...]


def add(network: Network, subject: Subject) -> dict[str, Any]:
    """Connect a namespace; the last plugin's result. What was done is not undone if this raises.

    :raise Unavailable: a plugin is not installed, or does not end. :raise FailedPrecondition: one fails, with what it says.
    """
    previous: dict[str, Any] | None = None
    for plugin in network.plugins:
        answer = _run("ADD", network, plugin, previous, subject)
        previous = conflist.result(answer, plugin["type"])
    return previous or {}


def remove(network: Network, subject: Subject, result: Mapping[str, Any] | None) -> None:
    """Undo :func:`add`, also one that got nowhere; every plugin is run. :raise UnikeelError: that of the first that fails."""
    failed: UnikeelError | None = None
    given = result if _knows_results(network.version) else None
    for plugin in reversed(network.plugins):
        try:
            _run("DEL", network, plugin, given, subject)
        except UnikeelError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _knows_results(version: str) -> bool:
    """From 0.4.0 on, DEL is given the result."""
    return tuple(map(int, version.split("."))) >= (0, 4, 0)


def _run(
    command: str, network: Network, plugin: Mapping[str, Any], previous: Mapping[str, Any] | None, subject: Subject
) -> bytes:
    name = plugin["type"]
    program = find(name, subject.directories)
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": subject.container,
        "CNI_NETNS": subject.namespace,
        "CNI_IFNAME": INTERFACE,
        "CNI_PATH": subject.directories,
        "PATH": ":".join(PROGRAM_DIRECTORIES),
        "LC_ALL": "C",
    }
    output = os.memfd_create("answer", os.MFD_CLOEXEC)
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        with sealed_bytes("configuration", conflist.derived(network, plugin, previous, subject.ports)) as told:
            process = spawn([program], environment, {0: told.fileno(), 1: output, 2: said}, group_leader=True)
            ended = process.wait(_SECONDS)
            if ended is None:
                process.send(signal.SIGKILL)
                process.wait()
                raise Unavailable(f"the CNI plugin {name} of network {network.name} did not end in {_SECONDS:.0f} s")
        answer = os.pread(output, _LONGEST, 0)
        if ended.code or ended.signal:
            last = os.pread(said, _LONGEST, 0).decode(errors="replace").strip().splitlines()[-1:]
            why = conflist.complaint(answer) or " ".join(last)[:400] or f"status {ended.code or -ended.signal}"
            raise FailedPrecondition(f"the CNI plugin {name} of network {network.name} failed ({command}): {why}")
        return answer
    finally:
        os.close(output)
        os.close(said)


def find(name: str, directories: str) -> str:
    """The program of a plugin. :raise Unavailable: it is nowhere."""
    found = search(name, directories.split(":"))
    if not found:
        raise Unavailable(
            f"the CNI plugin {name} is not in {directories}",
            "install it (Debian: apt-get install containernetworking-plugins), or set network.cni_plugins",
        )
    return found


def check(network: Network, directories: str, ports: Sequence[Port], source: str) -> None:
    """See that a container could have a network. :raise Unavailable: a plugin is missing. :raise InvalidArgument: it cannot publish ports."""
    for plugin in network.plugins:
        find(plugin["type"], directories)
    if ports and not network.publishes:
        raise InvalidArgument(
            f"{source} has no plugin that publishes ports",
            'add one with "capabilities": {"portMappings": true}, such as portmap',
        )
