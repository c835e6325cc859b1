"""What the roots are made of."""

from __future__ import annotations

from typing import Final, NamedTuple

_COMMON: Final = (  # noqa: SIM905 - read like a command line
    # what is tested with
    "containerd runc crun containernetworking-plugins qemu-system-x86 qemu-utils passt python3 python3-venv "
    # file systems and block devices
    "e2fsprogs erofs-utils xfsprogs dmsetup thin-provisioning-tools udev kmod mount "
    # looking around
    "iproute2 procps util-linux busybox-static strace less ca-certificates"
).split()
#: Only the virtual machine boots.
_BOOTING: Final = "systemd linux-image-cloud-amd64 initramfs-tools zstd".split()  # noqa: SIM905
#: The file systems of the project's own programs inside: empty directories to mount on.
MOUNT_POINTS: Final = (
    "unikeel",
    "opt/unikeel-launcher",
    "opt/lab-tools",
    "var/lib/unikeel",
    "var/lib/containerd",
    "etc/cni/net.d",
    "etc/containerd",
)
#: In an initrd made for one machine: the disk and the root's file system. Everything else is loaded once the root is there.
INITRD_MODULES: Final = ("virtio_pci", "virtio_blk", "ext4")


class Recipe(NamedTuple):
    """A root: a suite of Debian and packages of it. ``boots`` is true for the one with a kernel."""

    name: str
    suite: str
    packages: tuple[str, ...]
    boots: bool = False


ROOTS: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe("trixie", "trixie", (*_COMMON, *_BOOTING), boots=True),
        Recipe("sid", "sid", tuple(_COMMON)),
    )
}
#: Whose versions are recorded.
RECORDED: Final = (
    "containerd",
    "runc",
    "crun",
    "qemu-system-x86",
    "python3",
    "erofs-utils",
    "e2fsprogs",
    "passt",
    "systemd",
    "linux-image-cloud-amd64",
)

DPKG: Final = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
"""

#: The agent under systemd; under the lab's own init it is started by that.
AGENT_UNIT: Final = """\
[Unit]
Description=The lab's agent
DefaultDependencies=no
After=systemd-udevd.service local-fs.target

[Service]
ExecStartPre=/opt/lab-init prepare
ExecStart=/usr/bin/python3 -I -S /unikeel/lab/inside/agent.py
KillMode=process
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""

#: The virtual machine's first program: everything that may change often comes with the working tree's disk.
FIRST_INIT: Final = """\
#!/bin/sh
[ -d /proc/self ] || mount -t proc proc /proc
mount -o ro /dev/vdb /unikeel
exec /bin/sh /unikeel/lab/inside/boot.sh "$@"
"""
