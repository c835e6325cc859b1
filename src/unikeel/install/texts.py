"""The files themselves: containerd's runtime table, systemd's units, Kubernetes' RuntimeClass."""

from __future__ import annotations

import json
import os
from typing import Final

from unikeel.errors import InvalidArgument
from unikeel.model.names import quote

RUNTIME: Final = "io.containerd.unikeel.v2"
HANDLER: Final = "unikeel"
#: What annotations of a pod and of a container reach their specs.
ANNOTATIONS: Final = ("com.urunc.*", "org.unikeel.*")
#: Where the launcher looks for the daemon, unless told otherwise.
LAUNCH_SOCKET: Final = "/run/unikeel/daemon/launch.sock"
#: Our own snapshotter's name, and where a containerd finds it unless told otherwise.
SNAPSHOTTER: Final = "unikeel"
SNAPSHOT_SOCKET: Final = "/run/unikeel/snapshots/containerd.sock"
#: What containerd 2.x unpacks into by itself unless it is told of others.
_USUAL: Final = "overlayfs"
_TRANSFER: Final = "io.containerd.transfer.v1.local"
#: How a block in somebody else's file begins and ends.
BEGIN: Final = "# >>> unikeel: written by `unikeel install containerd`, whose --uninstall takes it out\n"
END: Final = "# <<< unikeel\n"

_CRI_2: Final = '"io.containerd.grpc.v1.cri"'
_RUNTIME_3: Final = "'io.containerd.cri.v1.runtime'"
_IMAGES_3: Final = "'io.containerd.cri.v1.images'"


def check_handler(name: str) -> str:
    """The name of a handler. :raise InvalidArgument: Kubernetes would not take it."""
    fine = 0 < len(name) <= 63 and name.isascii() and name == name.lower() and name.replace("-", "").isalnum()
    if not fine or name.startswith("-") or name.endswith("-"):
        raise InvalidArgument(
            f"--runtime-class-handler: {quote(name)} is no name for one", "lower-case letters, digits and dashes"
        )
    if name in ("runc", "default"):
        raise InvalidArgument(f"--runtime-class-handler: {quote(name)} is containerd's own")
    return name


def check_snapshotter(name: str) -> str:
    """The name of a snapshotter, or nothing. :raise InvalidArgument: containerd has none of such a name."""
    if name and not (
        len(name) <= 76 and name.isascii() and name[0].isalnum() and all(c.isalnum() or c in "-_." for c in name)
    ):
        raise InvalidArgument(
            f"--snapshotter: {quote(name)} is no name of a snapshotter", "`ctr plugins ls` shows them"
        )
    return name


def runtime_path(version: int) -> tuple[str, ...]:
    """Where the table of runtimes is in a configuration of that version."""
    plugin = _CRI_2 if version == 2 else _RUNTIME_3
    return ("plugins", plugin.strip("\"'"), "containerd", "runtimes")


def runtime_table(version: int, handler: str, snapshotter: str, *, images: bool) -> str:
    """The runtime of a handler, as tables that can stand anywhere after the first keys of a file.

    ``images``: the CRI plugin is containerd 2.x's, whose images are a plugin of their own. That one has to be told of the snapshotter, too: it does not
    take it over from a file of version 2.
    """
    plugin = _CRI_2 if version == 2 else _RUNTIME_3
    patterns = json.dumps(ANNOTATIONS)
    lines = [
        f"[plugins.{plugin}.containerd.runtimes.{handler}]",
        f'runtime_type = "{RUNTIME}"',
        f"pod_annotations = {patterns}",
        f"container_annotations = {patterns}",
        "privileged_without_host_devices = true",
    ]
    if snapshotter:
        lines.append(f'snapshotter = "{snapshotter}"')
        if images:
            lines += ["", f"[plugins.{_IMAGES_3}.runtime_platforms.{handler}]", f'snapshotter = "{snapshotter}"']
    return "\n".join(lines) + "\n"


def transfer_path() -> tuple[str, ...]:
    """Where containerd 2.x has the snapshotters that it unpacks pulled images into."""
    return ("plugins", _TRANSFER, "unpack_config")


def proxy_table(address: str, *, transfer: bool) -> str:
    """Our own snapshotter as a plugin. ``transfer``: containerd 2.x is told that it may unpack pulled images into it, beside the usual one, whose entry ours replaces."""
    lines = ["", f"[proxy_plugins.{SNAPSHOTTER}]", 'type = "snapshot"', f"address = {json.dumps(address)}"]
    for name in (_USUAL, SNAPSHOTTER) if transfer else ():
        lines += [
            "",
            f"[[plugins.'{_TRANSFER}'.unpack_config]]",
            f"platform = {json.dumps(_platform())}",
            f'snapshotter = "{name}"',
            'differ = "walking"',
        ]
    return "\n".join(lines) + "\n"


def _platform() -> str:
    machine = os.uname().machine
    return "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def drop_in(version: int, handler: str, snapshotter: str, proxy: str = "") -> str:
    """A file of our own that the main one imports (containerd 2.x, which merges tables). ``proxy``: of :func:`proxy_table`."""
    head = "# Written by `unikeel install containerd`, whose --uninstall takes it away.\n"
    return f"{head}version = {version}\n\n{runtime_table(version, handler, snapshotter, images=True)}{proxy}"


def block(version: int, handler: str, snapshotter: str, proxy: str = "", *, images: bool = False) -> str:
    """The same within the main file (containerd 1.x, in which an imported file would *replace* the plugin's whole table)."""
    return BEGIN + runtime_table(version, handler, snapshotter, images=images) + proxy + END


def snapshots_unit(address: str) -> str:
    """unikeel-snapshots.socket: containerd's first call starts the daemon, and waits for it."""
    return f"""# Written by `unikeel install containerd`, whose --uninstall takes it away.
[Unit]
Description=unikeel: where containerd finds its snapshots
Before=containerd.service

[Socket]
ListenStream={address}
FileDescriptorName=snapshots
SocketMode=0600
DirectoryMode=0700
Backlog=4096
Service=unikeel.service

[Install]
WantedBy=sockets.target
"""


def socket_unit() -> str:
    """unikeel.socket"""
    return f"""# Written by `unikeel install containerd`, whose --uninstall takes it away.
[Unit]
Description=unikeel: where containerd's launcher asks

[Socket]
ListenStream={LAUNCH_SOCKET}
FileDescriptorName=launch
SocketMode=0600
DirectoryMode=0700
Backlog=4096
Service=unikeel.service

[Install]
WantedBy=sockets.target
"""


def service_unit(command: str, options: tuple[str, ...] = (), *, snapshots: bool = False) -> str:
    """unikeel.service: guests outlive it, and its connections outlive its processes. ``snapshots``: with the socket of :func:`snapshots_unit`."""
    sockets = "unikeel.socket" + (" unikeel-snapshots.socket" if snapshots else "")
    line = " ".join(_unit_word(word) for word in (command, "daemon", *options))
    return f"""# Written by `unikeel install containerd`, whose --uninstall takes it away.
[Unit]
Description=unikeel: unikernels as containers
After=local-fs.target
Requires={sockets}
After={sockets}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={line}
Restart=always
RestartSec=100ms
# Guests, and the OCI runtime's own processes, are left alone when the service ends; their cgroups are the daemon's to make.
KillMode=process
Delegate=yes
# containerd takes the loss of a connection for the death of its task: connections, sockets and requests are kept over the keeper's own death.
FileDescriptorStoreMax=16384
# From systemd 254 on also while the service is stopped; older ones ignore it.
FileDescriptorStorePreserve=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=0
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
Also={sockets}
"""


def _unit_word(word: str) -> str:
    """A word of ExecStart. :raise InvalidArgument: it cannot be written there."""
    if not word.isprintable():
        raise InvalidArgument(f"{quote(word)} cannot be written into a unit")
    word = word.replace("%", "%%").replace("$", "$$")
    if word and all(char.isalnum() or char in "/._-+=:,@%" for char in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def runtime_class(handler: str, allowance: int) -> str:
    """The RuntimeClass. ``allowance`` (bytes) is what a monitor may use beside its guest's memory: the scheduler has to know of it."""
    mebibytes = -(-allowance // (1 << 20))
    return f"""# A pod with `runtimeClassName: {handler}` has its unikernels run by unikeel.
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: {handler}
handler: {handler}
overhead:
  podFixed:
    # sandbox.monitor_allowance: what a monitor may use beside its guest's memory
    memory: {mebibytes}Mi
scheduling:
  nodeSelector:
    unikeel.org/installed: "true"
"""
