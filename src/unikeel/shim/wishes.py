"""How a guest is to be run, as far as the user may say: annotations ``org.unikeel.*``, else the runtime's options, else the configuration file.

Every key is in a table with the check of its value; any other ``org.unikeel.*`` is refused, so that a misspelt one is not passed over in silence.
Nothing of an annotation reaches a command line but through these checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from unikeel.errors import InvalidArgument
from unikeel.model.image_fields import FIELDS, OWN_PREFIX
from unikeel.model.names import MONITORS, nearest, quote
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.config import Config

_OPTIONS_TYPE: Final = "runtimeoptions.v1.Options"
_OPTIONS_LIMIT: Final = 64 << 10


class Wishes(NamedTuple):
    """What is wished. Empty or 0: nothing. ``memory`` is in bytes."""

    boot_files: str = ""
    boot_layer: str = ""
    monitor: str = ""
    machine: str = ""
    accel: str = ""
    memory: int = 0
    cpus: int = 0
    network: str = ""
    ports: str = ""
    volumes: str = ""

    def over(self, other: Wishes) -> Wishes:
        """These, and where they say nothing, the others."""
        return _over(self, other)


@lru_cache(256)
def _over(mine: Wishes, theirs: Wishes) -> Wishes:
    """Field by field; what an image and its options wish is the same for all of its containers."""
    return Wishes(*[own or other for own, other in zip(mine, theirs, strict=True)])  # type: ignore[arg-type]


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"can be {', '.join(choices)}")
        return value

    return check


def _memory(value: str) -> int:
    from unikeel.config_values import MEMORY

    parsed = MEMORY.parse(value)
    assert isinstance(parsed, int)
    return parsed


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:6]) <= 255 or len(value) > 3:
        raise ValueError("must be a number from 1 to 255")
    return int(value)


def _ports(value: str) -> str:
    from unikeel.network.ports import parse_forwarded

    parse_forwarded(value)
    return value


class _Row(NamedTuple):
    """A wish: its field, the check of its text, its key in the runtime's options."""

    field: str
    parse: Callable[[str], str | int]
    option: str


#: Every annotation of ours that tells how a guest is run; those that tell what it is are in :data:`unikeel.model.image_fields.FIELDS`.
ANNOTATIONS: Final[dict[str, _Row]] = {
    OWN_PREFIX + "boot-files": _Row(
        "boot_files", _one_of("auto", "cache", "shared-view", "view", "copy"), "boot.strategy"
    ),
    OWN_PREFIX + "boot-layer": _Row("boot_layer", _one_of("whole", "lowest"), "boot.layer"),
    OWN_PREFIX + "monitor": _Row("monitor", _one_of(*MONITORS), "monitor.name"),
    OWN_PREFIX + "accel": _Row("accel", _one_of("auto", "kvm", "tcg"), "monitor.accel"),
    OWN_PREFIX + "memory": _Row("memory", _memory, "monitor.memory"),
    OWN_PREFIX + "cpus": _Row("cpus", _count, "monitor.cpus"),
    OWN_PREFIX + "network": _Row("network", _one_of("none", "user", "tap", "static"), "network.default"),
    OWN_PREFIX + "ports": _Row("ports", _ports, "network.ports"),
    OWN_PREFIX + "volumes": _Row("volumes", _one_of("required", "optional"), "task.volumes"),
}
_BY_OPTION: Final = {row.option: row for row in ANNOTATIONS.values()} | {
    "monitor.machine": _Row("machine", _one_of("auto", "microvm", "q35"), "monitor.machine"),
    "network.default": _Row("network", _one_of("auto", "none", "user", "tap", "static"), "network.default"),
}


def from_annotations(annotations: Mapping[str, str]) -> Wishes:
    """The wishes in a specification's annotations. :raise InvalidArgument: with the annotation's name."""
    found: dict[str, Any] = {}
    for key, value in annotations.items():
        if not key.startswith(OWN_PREFIX) or key in FIELDS:
            continue
        row = ANNOTATIONS.get(key)
        if row is None:
            near = nearest(key, (*ANNOTATIONS, *FIELDS))
            raise InvalidArgument(
                f"the annotation {quote(key)} is unknown",
                f"did you mean {near}?" if near else f"known: {', '.join(ANNOTATIONS)}",
            )
        try:
            found[row.field] = row.parse(value)
        except ValueError as error:
            raise InvalidArgument(f"the annotation {key} {error}, not {quote(value)}") from None
    return Wishes(**found)


def from_options(type_url: str, value: bytes) -> Wishes:
    """The wishes in a runtime's options: of the type ``runtimeoptions.v1.Options``, a TOML text with keys as in our configuration file.

    Options of any other type are another runtime's, and pass. :raise InvalidArgument: they are wrong.
    """
    from google.protobuf.message import DecodeError

    from unikeel.containerd.wire import options_runtime_pb2

    if type_url.rpartition("/")[2] != _OPTIONS_TYPE:
        return Wishes()
    try:
        options = options_runtime_pb2.Options.FromString(value)
    except DecodeError:
        raise InvalidArgument("the runtime's options are malformed") from None
    if options.config_body:
        return from_toml(options.config_body, "the runtime's options")
    if options.config_path:
        return from_toml(_read(options.config_path), options.config_path)
    return Wishes()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_OPTIONS_LIMIT + 1)
    except OSError as error:
        raise InvalidArgument(f"the runtime's options name {quote(path)}: {error.strerror}") from None


def from_toml(data: bytes, source: str) -> Wishes:
    """The wishes in a TOML text. :raise InvalidArgument: it is not one, or has a key or value that cannot be."""
    import tomllib

    if len(data) > _OPTIONS_LIMIT:
        raise InvalidArgument(f"{source} has more than {_OPTIONS_LIMIT} bytes")
    try:
        parsed = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{source}: not TOML: {str(error)[:200]}") from None
    found: dict[str, Any] = {}
    for section, values in parsed.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            key = f"{section}.{name}"
            row = _BY_OPTION.get(key)
            if row is None:
                raise InvalidArgument(f"{source}: key {quote(key)} is unknown", f"known: {', '.join(_BY_OPTION)}")
            try:
                found[row.field] = row.parse(str(value))
            except ValueError as error:
                raise InvalidArgument(f"{source}: {key} {error}, not {quote(str(value))}") from None
        if not isinstance(values, dict):
            raise InvalidArgument(f"{source}: key {quote(section)} is unknown", f"known: {', '.join(_BY_OPTION)}")
    return Wishes(**found)


def from_config(config: Config) -> Wishes:
    """What the configuration file says, where nobody wishes anything."""
    return Wishes(
        boot_files=config.boot_strategy,
        boot_layer="whole",
        machine="" if config.monitor_machine == "auto" else config.monitor_machine,
        accel=config.monitor_accel,
        memory=config.monitor_memory,
        cpus=config.monitor_cpus,
        network=config.network_default,
    )
