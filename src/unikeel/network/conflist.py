"""CNI's network configuration: lists of plugins in JSON (``*.conflist``), or a single one (``*.conf``), checked; and what each plugin is told.

Format and rules: the CNI specification 1.0.0, sections 1, 3 and "derived execution configuration". Nothing here runs anything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence

from unikeel.errors import InvalidArgument, NotFound
from unikeel.lean import Any, Final
from unikeel.model.names import nearest, quote
from unikeel.network.ports import Port
from unikeel.values import NamedTuple

LIMIT: Final = 1 << 20
_MOST_PLUGINS: Final = 32
_MOST_FILES: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_OLDEST: Final = "0.1.0"
_SUFFIXES: Final = (".conflist", ".conf", ".json")
_PORTS: Final = "portMappings"


class Network(NamedTuple):
    """A network: its name, CNI's version that it is written in, and its plugins in their order."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]

    @property
    def publishes(self) -> bool:
        """Whether a plugin of it publishes ports."""
        return any(_has(plugin, _PORTS) for plugin in self.plugins)


def find(wish: str, directory: str) -> tuple[str, str]:
    """The file that a user means, a path or the name of a network in ``directory``: its path, and its content.

    :raise NotFound: there is no such file or network. :raise InvalidArgument: it cannot be read.
    """
    if "/" in wish or wish.endswith(_SUFFIXES):
        return os.path.abspath(wish), _read(wish)
    names = {}
    for path in _files(directory):
        try:
            text = _read(path)
            names[parse(text, path).name] = (path, text)
        except InvalidArgument:
            continue
        if wish in names:
            return names[wish]
    near = nearest(wish, names)
    known = f"did you mean {near}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise NotFound(
        f"there is no network {quote(wish)} in {directory}", f"name user, none, a file, or a network; {known}"
    )


def _files(directory: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIXES))
    except OSError:
        return []
    return [os.path.join(directory, name) for name in names[:_MOST_FILES]]


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"the network configuration {path} does not exist") from None
    except OSError as error:
        raise InvalidArgument(f"the network configuration {path} cannot be read: {error.strerror}") from None
    try:
        with open(fd, "rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise InvalidArgument(f"the network configuration {path} has more than {LIMIT} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the network configuration {path} cannot be read: {error}") from None


def parse(text: str, source: str) -> Network:
    """A network from its configuration. :raise InvalidArgument: it is none; the message names ``source`` and what is wrong."""
    document = _object(_json(text, source), source, "it")
    plugins = document.get("plugins", [document] if "type" in document else None)
    if not isinstance(plugins, list) or not 1 <= len(plugins) <= _MOST_PLUGINS:
        raise InvalidArgument(f"{source} has no list of plugins (1 to {_MOST_PLUGINS})")
    name, version = document.get("name"), document.get("cniVersion", _OLDEST)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f"{source}: the network's name must be letters, digits, '_', '.' and '-'")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InvalidArgument(f"{source}: cniVersion must be a version such as 1.0.0")
    return Network(name, version, tuple(_plugin(plugin, source) for plugin in plugins))


def _plugin(value: object, source: str) -> Mapping[str, Any]:
    plugin = _object(value, source, "a plugin")
    kind = plugin.get("type")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        raise InvalidArgument(f"{source}: a plugin's type must be the name of a program, without a path")
    if not isinstance(plugin.get("capabilities", {}), dict):
        raise InvalidArgument(f"{source}: the capabilities of the plugin {kind} are no object")
    return plugin


def derived(
    network: Network, plugin: Mapping[str, Any], previous: Mapping[str, Any] | None, ports: Sequence[Port]
) -> bytes:
    """What one plugin is told on its standard input. ``previous`` is the result of those before it, or, to undo, that of all."""
    told = {key: value for key, value in plugin.items() if key not in ("capabilities", "plugins")}
    told |= {"cniVersion": network.version, "name": network.name}
    if _has(plugin, _PORTS) and ports:
        told["runtimeConfig"] = {_PORTS: [_mapping(port) for port in ports]}
    if previous is not None:
        told["prevResult"] = previous
    return json.dumps(told).encode()


def _mapping(port: Port) -> dict[str, object]:
    mapping: dict[str, object] = {"hostPort": port.host, "containerPort": port.guest, "protocol": port.protocol}
    if port.address:
        mapping["hostIP"] = port.address
    return mapping


def result(text: bytes, plugin: str) -> dict[str, Any]:
    """What a plugin answers on its standard output. :raise InvalidArgument: it is no object in JSON."""
    return _object(_json(text.decode(errors="replace"), f"the answer of the CNI plugin {plugin}"), plugin, "its answer")


def complaint(text: bytes) -> str:
    """The error in a failed plugin's answer, as one line; empty: there is none."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    words = [str(answer[key]) for key in ("msg", "details") if answer.get(key)]
    return " ".join(": ".join(words).split())[:400]


def name_server(answer: Mapping[str, Any]) -> str:
    """The first IPv4 name server in a result; empty: there is none."""
    import ipaddress

    dns = answer.get("dns")
    servers = dns.get("nameservers") if isinstance(dns, dict) else None
    for server in servers if isinstance(servers, list) else ():
        try:
            return str(ipaddress.IPv4Address(str(server)))
        except ValueError:
            continue
    return ""


def _has(plugin: Mapping[str, Any], capability: str) -> bool:
    return plugin.get("capabilities", {}).get(capability) is True


def _json(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{source} is not JSON: {str(error)[:200]}") from None


def _object(value: object, source: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{source}: {what} is not an object in JSON")
    return value
