"""The configuration file: one table of keys behind parsing, ``unikeel config`` and docs/configuration.md.

One TOML file is read: the one named on the command line, else by ``UNIKEEL_CONFIG``, else /etc/unikeel/config.toml if it exists. Every key has a
default. All problems of a file are reported at once; an unknown key is one of them, with the nearest spelling. The value is one flat
tuple, whose field ``boot_strategy`` is the key ``boot.strategy``: a class per section costs more to make than all else here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from unikeel.config_values import (
    ADDRESS,
    BLOCK_SIZE,
    HOST_PORT,
    INTERFACE,
    MEMORY,
    NAME,
    NAMES,
    OPTIONAL_PATH,
    PATH,
    PATHS,
    SECONDS,
    SIZE,
    Kind,
    Value,
    choice,
    format_size,
    number,
)
from unikeel.errors import ConfigError
from unikeel.lean import Final
from unikeel.model.names import nearest, quote
from unikeel.values import NamedTuple

#: Where the file is if nobody says otherwise. It may be missing; one that somebody named may not.
DEFAULT_PATH: Final = "/etc/unikeel/config.toml"
#: Where the daemon's sockets are if nobody says otherwise, for the default state root: what the launcher expects.
DEFAULT_RUN: Final = "/run/unikeel"
#: The environment variable that names the file.
VARIABLE: Final = "UNIKEEL_CONFIG"
#: The longest file that is read, in bytes.
FILE_LIMIT: Final = 1 << 20


class Config(NamedTuple):
    """The whole configuration. Sizes are bytes, times seconds. What each key means is in :data:`KEYS`."""

    root: str
    run_root: str
    boot_strategy: str
    boot_cache_size: int
    boot_fill_timeout: float
    boot_kernel_limit: int
    boot_initrd_limit: int
    boot_view_linger: float
    snapshots_free_space: int
    snapshotter_store: str
    snapshotter_sockets: str
    snapshotter_empty_size: int
    snapshotter_workers: int
    snapshotter_spares: int
    snapshotter_spares_total: int
    kernel_image: str
    kernel_modules: str
    monitor_machine: str
    monitor_accel: str
    monitor_memory: int
    monitor_cpus: int
    monitor_qemu_path: str
    monitor_firecracker_path: str
    monitor_cloud_hypervisor_path: str
    monitor_hvt_path: str
    monitor_spt_path: str
    monitor_uml_path: str
    monitor_virtiofsd_path: str
    sandbox_runtime: str
    sandbox_monitor_allowance: int
    sandbox_uid_base: int
    sandbox_uid_count: int
    network_default: str
    network_address: str
    network_gateway: str
    network_dns: str
    network_cni_networks: str
    network_cni_plugins: str
    network_queues: int
    network_vhost: str
    keeper_idle: float
    keeper_view_idle: float
    console_log_size: int
    start_timeout: float
    stop_timeout: float
    daemon_workers: int
    daemon_metrics: str
    containerd_made_limit: int
    containerd_made_linger: float
    containerd_made_timeout: float

    def monitor_path(self, monitor: str) -> str:
        """The configured path of a monitor's program; an empty string: to be found in PATH."""
        return str(getattr(self, f"monitor_{monitor.replace('-', '_')}_path", ""))


class Key(NamedTuple):
    """One row of the table. The default is written as in a file."""

    name: str
    kind: Kind
    default: Value
    doc: str


#: Every key, in the order of the file and of :class:`Config`.
KEYS: Final = (
    Key(
        "root",
        PATH,
        "/var/lib/unikeel",
        "Where everything is kept: images, snapshots, the cache of boot files, records.",
    ),
    Key(
        "run_root",
        OPTIONAL_PATH,
        "",
        "Where sockets and sandboxes live that need not survive a reboot. Empty: `run` under `root`.",
    ),
    Key(
        "boot.strategy",
        choice("auto", "cache", "shared-view", "view", "copy"),
        "auto",
        "How boot files are got from the image's snapshot. `auto` is `cache`. Where the host lacks a means for "
        "the one that is picked, the next one is used, and the start says so.",
    ),
    Key(
        "boot.cache_size",
        SIZE,
        "2GiB",
        "The most that cached boot files may take; the least recently used go first, never one in use.",
    ),
    Key("boot.fill_timeout", SECONDS, 60, "How long reading one image's boot files may take."),
    Key("boot.kernel_limit", SIZE, "512MiB", "The largest kernel that is accepted."),
    Key("boot.initrd_limit", SIZE, "2GiB", "The largest initrd, or disk in an image, that is accepted."),
    Key(
        "boot.view_linger",
        SECONDS,
        30,
        "How long the daemon keeps an image's shared view in containerd after the last container that used it was removed.",
    ),
    Key(
        "snapshots.free_space", SIZE, "256MiB", "Room left for the container in a snapshot, beyond the image's content."
    ),
    Key(
        "snapshotter.store",
        NAME,
        "file",
        "Where the snapshots of containerds are: `file`, a file for each below `root`, or the name of a pool.",
    ),
    Key(
        "snapshotter.sockets",
        NAMES,
        "containerd",
        "Names separated by spaces, one for each containerd: each has a socket `NAME.sock` in /run/unikeel/snapshots (in the directory `snapshots` of `run_root`), and "
        "sees only what was made over it.",
    ),
    Key(
        "snapshotter.empty_size",
        BLOCK_SIZE,
        "10GiB",
        "The size of a file system on which an image is unpacked, and so the most that a container's image and its own files can have. What is not used takes no space.",
    ),
    Key(
        "snapshotter.workers",
        number(1, 256),
        16,
        "How many calls of containerds the snapshotter works on at the same time; more wait for their turn.",
    ),
    Key(
        "snapshotter.spares",
        number(0, 256),
        8,
        "The most snapshots that a store has ready in advance for one parent: as many as were wanted of it lately. 0: none. In files only where these can share blocks.",
    ),
    Key("snapshotter.spares_total", number(0, 4096), 32, "The most of them in the store."),
    Key(
        "kernel.image",
        OPTIONAL_PATH,
        "",
        "The kernel of `--kernel default`. Empty: the newest `/boot/vmlinuz-VERSION` that has `/lib/modules/VERSION`.",
    ),
    Key(
        "kernel.modules",
        OPTIONAL_PATH,
        "",
        "The directory of its modules, with `modules.dep`. Empty: `/lib/modules/VERSION` of that kernel.",
    ),
    Key(
        "monitor.machine",
        choice("auto", "microvm", "q35"),
        "auto",
        "The machine that QEMU emulates. `auto`: what the guest's kind boots on most surely, or what the image wants.",
    ),
    Key(
        "monitor.accel",
        choice("auto", "kvm", "tcg"),
        "auto",
        "Hardware virtualization or emulation. `auto` measures once per boot of the host, and takes KVM if it was the faster.",
    ),
    Key("monitor.memory", MEMORY, "256MiB", "A guest's memory if nothing else says."),
    Key("monitor.cpus", number(1, 255), 1, "A guest's processors if nothing else says."),
    Key("monitor.qemu_path", OPTIONAL_PATH, "", "QEMU's program. Empty: `qemu-system-ARCH` found in PATH."),
    Key("monitor.firecracker_path", OPTIONAL_PATH, "", "Firecracker's program. Empty: `firecracker` found in PATH."),
    Key(
        "monitor.cloud_hypervisor_path",
        OPTIONAL_PATH,
        "",
        "Cloud Hypervisor's program. Empty: `cloud-hypervisor` found in PATH.",
    ),
    Key("monitor.hvt_path", OPTIONAL_PATH, "", "Solo5's hvt's program. Empty: `solo5-hvt` found in PATH."),
    Key("monitor.spt_path", OPTIONAL_PATH, "", "Solo5's spt's program. Empty: `solo5-spt` found in PATH."),
    Key("monitor.uml_path", OPTIONAL_PATH, "", "The program of user-mode Linux. Empty: `linux.uml` found in PATH."),
    Key(
        "monitor.virtiofsd_path",
        OPTIONAL_PATH,
        "",
        "The file server of guests that share directories by virtiofs. Empty: `virtiofsd` where distributions have it.",
    ),
    Key(
        "sandbox.runtime",
        choice("auto", "crun", "runc"),
        "auto",
        "What confines monitors. `auto`: crun, or runc where crun cannot run.",
    ),
    Key(
        "sandbox.monitor_allowance",
        SIZE,
        "128MiB",
        "Memory that a monitor may use beyond its guest's. QEMU's emulation alone keeps up to 64 MiB of translated code.",
    ),
    Key(
        "sandbox.uid_base",
        number(1, (1 << 32) - 2),
        2000000000,
        "The first of the user ids given to monitors, one to each container.",
    ),
    Key(
        "sandbox.uid_count",
        number(1, 1 << 24),
        65536,
        "How many such user ids there are, and so how many containers at once.",
    ),
    Key(
        "network.default",
        choice("auto", "user", "none"),
        "auto",
        "The network of containers that ask for none in particular. `auto`: user mode if ports are published or the guest is of a kind that "
        "is told its address at boot (linux), else none, which saves a process for each container. Under containerd, `auto` is a tap for such guests in the "
        "network namespace that their configuration names, a pod's.",
    ),
    Key("network.address", INTERFACE, "10.0.2.15/24", "The guest's own address in user-mode networking."),
    Key("network.gateway", ADDRESS, "10.0.2.2", "Its gateway, inside the network of `network.address`."),
    Key("network.dns", ADDRESS, "10.0.2.3", "Its name server, which asks those of the host. Empty: none."),
    Key(
        "network.cni_networks",
        PATH,
        "/etc/cni/net.d",
        "Where the networks of `--net NAME` are configured, each in a `.conflist` or `.conf` of CNI's.",
    ),
    Key(
        "network.cni_plugins",
        PATHS,
        "/usr/lib/cni:/opt/cni/bin",
        "Where CNI's plugins are, in directories separated by colons.",
    ),
    Key(
        "network.queues",
        number(1, 16),
        1,
        "How many queues a guest's network card has on a tap device, where the monitor can have several. A guest with as many processors profits from them.",
    ),
    Key(
        "network.vhost",
        choice("auto", "never"),
        "auto",
        "Whether the kernel itself moves a tap's frames to and from QEMU's guests (vhost-net). `auto`: where the host has /dev/vhost-net.",
    ),
    Key("keeper.idle", SECONDS, 3, "How long the keeper stays when nothing runs."),
    Key("keeper.view_idle", SECONDS, 2, "How long a shared view is kept when no container uses it."),
    Key("console.log_size", SIZE, "16MiB", "The most of a container's console that is kept."),
    Key("start.timeout", SECONDS, 120, "How long a start may take until the guest's processor runs."),
    Key("stop.timeout", SECONDS, 10, "How long a guest may take to power down before it is killed."),
    Key(
        "daemon.workers",
        number(1, 256),
        16,
        "How many tasks the daemon makes, starts or removes at the same time; more wait for their turn.",
    ),
    Key(
        "daemon.metrics",
        HOST_PORT,
        "",
        "Where the daemon's metrics can be read over HTTP, such as `127.0.0.1:9101`, beside its socket `metrics.sock`. Empty: only there.",
    ),
    Key(
        "containerd.made_limit",
        SIZE,
        "16GiB",
        "The most that an image's files may have for a disk to be made of them, for guests that need one where the snapshotter has none to give.",
    ),
    Key(
        "containerd.made_linger",
        SECONDS,
        3600,
        "How long such an image is kept after the last task that used it was removed.",
    ),
    Key("containerd.made_timeout", SECONDS, 120, "How long making one may take."),
)
_BY_NAME: Final = {key.name: key for key in KEYS}


def field_of(name: str) -> str:
    """The field of :class:`Config` that a key fills."""
    return name.replace(".", "_")


def defaults() -> Config:
    """The configuration of an empty file."""
    return _config({})


def load(path: str = "", environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    :param path: the file that the user names, or an empty string.
    :raises ConfigError: a named file is missing, or a file is unreadable, too long, not TOML, or has wrong keys or values.
    """
    named = path or environment.get(VARIABLE, "")
    try:
        with open(named or DEFAULT_PATH, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        if named:
            raise ConfigError(f"the configuration file {named} does not exist") from None
        return defaults()
    except OSError as error:
        raise ConfigError(f"the configuration file {named or DEFAULT_PATH} cannot be read: {error.strerror}") from None
    return parse(data, named or DEFAULT_PATH)


def parse(data: bytes, source: str) -> Config:
    """The configuration in the bytes of a file; ``source`` names it in messages. :raises ConfigError: with all problems at once."""
    import tomllib

    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{source} is longer than {FILE_LIMIT} bytes")
    try:
        values = _flat(tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not TOML: {str(error)[:200]}") from None
    problems = [_unknown(name) for name in values if name not in _BY_NAME]
    parsed: dict[str, Value] = {}
    for name in values.keys() & _BY_NAME:
        try:
            parsed[name] = _BY_NAME[name].kind.parse(values[name])
        except ValueError as error:
            problems.append(f"{name} = {_shown(values[name])}: {error}")
    config = _config(parsed)
    problems += _contradictions(config)
    if problems:
        raise ConfigError(f"{source}: {'; '.join(sorted(problems))}", "docs/configuration.md lists every key")
    return config


def dump(config: Config) -> str:
    """A file that :func:`parse` reads back as the same configuration, with every key."""
    lines: list[str] = []
    section = ""
    for key in KEYS:
        prefix, _, last = key.name.rpartition(".")
        if prefix != section:
            section = prefix
            lines += ["", f"[{section}]"]
        lines.append(f"{last} = {_toml(key, getattr(config, field_of(key.name)))}")
    return "\n".join(lines) + "\n"


def _config(values: Mapping[str, Value]) -> Config:
    found = (values[key.name] if key.name in values else _default(key) for key in KEYS)
    return Config(*found)  # type: ignore[arg-type]  # the kinds fit the fields; a test checks that


def _default(key: Key) -> Value:
    """Addresses as they stand: checking them would import ipaddress at each start."""
    return key.default if key.kind in (ADDRESS, INTERFACE) else key.kind.parse(key.default)


def _flat(table: Mapping[str, object]) -> dict[str, object]:
    """``{"boot": {"strategy": x}}`` as ``{"boot.strategy": x}``; an empty table counts as a value, unless it is a section of ours."""
    return dict(_leaves(table, ""))


def _leaves(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        full = prefix + name
        if isinstance(value, dict) and (value or any(key.name.startswith(f"{full}.") for key in KEYS)):
            yield from _leaves(value, f"{full}.")
        else:
            yield full, value


def _unknown(name: str) -> str:
    near = nearest(name, _BY_NAME)
    return f"key {quote(name)} is unknown" + (f" (did you mean {near}?)" if near else "")


def _shown(value: object) -> str:
    try:
        return quote(str(value))
    except ValueError:  # Python refuses to write out a number of thousands of digits
        return "a huge number"


def _contradictions(config: Config) -> Iterator[str]:
    """What no value breaks alone."""
    if config.sandbox_uid_base + config.sandbox_uid_count >= 1 << 32:
        yield "sandbox.uid_base and sandbox.uid_count go beyond the last user id"
    if _network(config) == _network(defaults()):
        return
    import ipaddress

    interface = ipaddress.IPv4Interface(config.network_address)
    if config.network_gateway and ipaddress.IPv4Address(config.network_gateway) not in interface.network:
        yield f"network.gateway {config.network_gateway} is not inside network.address {config.network_address}"
    if str(interface.ip) in (config.network_gateway, config.network_dns):
        yield f"network.address {interface.ip} is also the gateway or the name server"


def _network(config: Config) -> tuple[str, str, str]:
    return config.network_address, config.network_gateway, config.network_dns


def _toml(key: Key, value: Value) -> str:
    return toml_value(format_size(int(value)) if key.kind in (SIZE, MEMORY, BLOCK_SIZE) else value)


def toml_value(value: Value) -> str:
    """A value as TOML. Text is printable, so quotes and backslashes are all there is to escape."""
    if not isinstance(value, str):
        return repr(value).removesuffix(".0")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
