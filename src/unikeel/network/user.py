"""User-mode networking: the passt process beside a monitor.

passt confines itself (user, mount, IPC, UTS and PID namespaces, an empty root, seccomp, no capabilities) and runs under the container's own
user; it ends with its socket, that is with the monitor. Facts: passt(1).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from unikeel.errors import Unavailable
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.model.plan import UserNet
from unikeel.network.ports import Forwarded, Port

_NETWORK_MAC: Final = "52:55:0a:00:02:02"


def guest_mac(uid: int) -> str:
    """A locally administered address, different for each container of a state root."""
    return "52:54:" + ":".join(f"{uid >> shift & 255:02x}" for shift in (24, 16, 8, 0))


def helper_argv(
    passt: str, net: UserNet, ports: Sequence[Port], uid: int, forwarded: Forwarded | None = None
) -> list[str]:
    """The command line of the helper; its connected socket is descriptor 3.

    :param passt: absolute path of the program. :param forwarded: ports that keep their numbers, instead of published ones.
    """
    argv = _begin(passt, net, uid)
    if net.dns:
        argv += ["--dns", net.dns, "--dns-forward", net.dns]
    else:
        argv += ["--dns", "none"]
    if not _has_default_route():
        argv += ["--interface", "lo"]
    if forwarded is not None:
        return argv + _forward(forwarded)
    for protocol, option in (("tcp", "--tcp-ports"), ("udp", "--udp-ports")):
        chosen = [port for port in ports if port.protocol == protocol]
        for port in chosen:
            argv += [option, (f"{port.address}/" if port.address else "") + f"{port.host}:{port.guest}"]
        if not chosen:
            argv += [option, "none"]
    return argv


def _begin(passt: str, net: UserNet, uid: int) -> list[str]:
    argv = [passt, "--foreground", "--quiet", "--fd", "3", "--runas", f"{uid}:{uid}", "--ipv4-only", "--no-map-gw"]
    argv += ["--address", net.address, "--netmask", net.netmask, "--gateway", net.gateway]
    return [*argv, "--mac-addr", _NETWORK_MAC, "--no-dhcp-search", "--search", "none"]


def joined_argv(passt: str, net: UserNet, forwarded: Forwarded, interface: str, uid: int) -> list[str]:
    """The command line of a helper in another network namespace, which is its descriptor 4: the guest has the address of ``interface`` there.

    :raise Unavailable: nsenter is not installed.
    """
    nsenter = find_program("nsenter")
    if not nsenter:
        raise Unavailable("a network in a pod needs nsenter, which is not installed", "install util-linux")
    argv = [nsenter, "--net=/proc/self/fd/4", *_begin(passt, net, uid), "--interface", interface]
    return [*argv, "--dns", net.dns or "none", *_forward(forwarded)]


def _forward(forwarded: Forwarded) -> list[str]:
    argv = []
    for option, ranges in (("--tcp-ports", forwarded.tcp), ("--udp-ports", forwarded.udp)):
        argv += [option, ",".join(str(a) if a == z else f"{a}-{z}" for a, z in ranges) or "none"]
    return argv


def is_ready(pid: int, uid: int) -> bool:
    """Whether the helper listens: it becomes the container's user when it does."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return any(line.split()[1:2] == [str(uid)] for line in file if line.startswith("Uid:"))
    except OSError:
        return False


def find_passt() -> str:
    """The absolute path of passt. :raise Unavailable: it is not installed."""
    path = find_program("passt")
    if path:
        return path
    raise Unavailable(
        "user-mode networking needs passt, which is not installed",
        "install it (Debian: apt-get install passt), or run with --net none",
    )


def _has_default_route() -> bool:
    """Whether the host has an IPv4 default route, which passt otherwise asks for."""
    with open("/proc/net/route", encoding="ascii") as file:
        next(file, None)
        return any(line.split()[1] == "00000000" for line in file)


def serves(ports: Sequence[Port], pid: int) -> bool:
    """Whether the helper, the process ``pid``, listens on all published ports."""
    own = _sockets_of(pid)
    return bool(own) and all(_has_socket(port, own) for port in ports)


def _sockets_of(pid: int) -> set[str]:
    """The inode numbers of a process's sockets; none if it is gone."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    targets = [_target(f"/proc/{pid}/fd/{name}") for name in names]
    return {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def _has_socket(port: Port, own: set[str]) -> bool:
    """By proc(5), /proc/net/tcp: local address and port in hex, state (0A: listening, 07: an unconnected UDP socket), inode.

    The column with the user does not tell the helper from others: it binds before it becomes the container's user.
    """
    wanted = "0A" if port.protocol == "tcp" else "07"
    with open(f"/proc/net/{port.protocol}", encoding="ascii") as file:
        next(file)
        for line in file:
            words = line.split()
            if words[1].endswith(f":{port.host:04X}") and words[3] == wanted and words[9] in own:
                return True
    return False
