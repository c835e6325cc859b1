"""The files that a containerd of the lab gets: its own configuration, that of CNI, and crictl's."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

SOCKET: Final = "/run/containerd/containerd.sock"
ROOT: Final = "/var/lib/containerd"
#: The image of a pod's own container, made by the lab.
PAUSE: Final = "lab.unikeel/pause:1"
BLOCKFILE_SCRATCH: Final = f"{ROOT}/scratch.ext4"
#: containerd's btrfs snapshotter wants a btrfs here.
BTRFS: Final = f"{ROOT}/io.containerd.snapshotter.v1.btrfs"
THIN_POOL: Final = "pool"
#: Where our own snapshotter serves, and what it is called.
UNIKEEL: Final = "unikeel"
SNAPSHOTTER_SOCKET: Final = "/run/unikeel/snapshots/containerd.sock"
CNI: Final = "/etc/cni/net.d/10-lab.conflist"
_ANNOTATIONS: Final = '["com.urunc.*", "org.unikeel.*"]'


class Features(NamedTuple):
    """What a containerd is asked to offer. ``snapshotter`` is the default one, of CRI and of :meth:`lab.place.Place.import_image`."""

    snapshotter: str
    version: int  # the major number
    devmapper: bool = False
    base_image_mib: int = 512
    extra: str = ""  # appended as it is
    btrfs: bool = False  # a btrfs is mounted where its snapshotter wants it

    @property
    def erofs(self) -> bool:
        """containerd's own erofs snapshotter came with 2.1."""
        return self.version >= 2


def containerd(features: Features) -> str:
    """``/etc/containerd/config.toml``."""
    return (
        f"version = {3 if features.version >= 2 else 2}\n"
        + _COMMON.replace("BTRFS", "" if features.btrfs else _NO_BTRFS)
        + _snapshotters(features)
        + (_cri_2(features) if features.version >= 2 else _cri_1(features))
        + features.extra
    )


def cni() -> str:
    """A bridge of the lab's own network namespace; nothing leads out of it."""
    ranges = [[{"subnet": "10.88.0.0/16"}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "lab0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge]}, indent=1)


def crictl() -> str:
    """``/etc/crictl.yaml``."""
    return f"runtime-endpoint: unix://{SOCKET}\nimage-endpoint: unix://{SOCKET}\ntimeout: 60\n"


#: It needs a file system of its own, and fails where it has none.
_NO_BTRFS: Final = '"io.containerd.snapshotter.v1.btrfs", '
_COMMON: Final = f"""\
root = "{ROOT}"
state = "/run/containerd"
disabled_plugins = [BTRFS"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri"]

[grpc]
  address = "{SOCKET}"
[debug]
  level = "debug"
"""


def _snapshotters(features: Features) -> str:
    text = f"""
[proxy_plugins.{UNIKEEL}]
  type = "snapshot"
  address = "{SNAPSHOTTER_SOCKET}"
[plugins."io.containerd.snapshotter.v1.blockfile"]
  scratch_file = "{BLOCKFILE_SCRATCH}"
  fs_type = "ext4"
  mount_options = []
"""
    if features.devmapper:
        text += f"""
[plugins."io.containerd.snapshotter.v1.devmapper"]
  pool_name = "{THIN_POOL}"
  root_path = "{ROOT}/devmapper"
  base_image_size = "{features.base_image_mib}MB"
  fs_type = "ext4"
  discard_blocks = true
"""
    if features.erofs:
        text += """
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]
"""
        for name in dict.fromkeys((features.snapshotter, UNIKEEL)):
            text += f"""
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "{name}"
  differ = "{"erofs" if name == "erofs" else "walking"}"
"""
    return text


def _runtimes(table: str, features: Features) -> str:
    return f"""
[{table}.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  snapshotter = "{features.snapshotter}"
[{table}.runtimes.unikeel]
  runtime_type = "io.containerd.unikeel.v2"
  snapshotter = "{features.snapshotter}"
  container_annotations = {_ANNOTATIONS}
  pod_annotations = {_ANNOTATIONS}
"""


def _cri_1(features: Features) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""
[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
[{cri}.containerd]
  snapshotter = "{features.snapshotter}"
  default_runtime_name = "runc"
{_runtimes(f"{cri}.containerd", features)}"""


def _cri_2(features: Features) -> str:
    runtime, images = 'plugins."io.containerd.cri.v1.runtime"', 'plugins."io.containerd.cri.v1.images"'
    return f"""
[{images}]
  snapshotter = "{features.snapshotter}"
[{images}.pinned_images]
  sandbox = "{PAUSE}"
[{runtime}]
  restrict_oom_score_adj = true
[{runtime}.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
[{runtime}.containerd]
  default_runtime_name = "runc"
{_runtimes(f"{runtime}.containerd", features)}"""
