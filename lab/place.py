"""What the two kinds of lab have in common: run something in there, and a containerd that can be started, killed and looked at."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from lab import configuration
from lab.commands import shown, tail
from lab.configuration import Features
from lab.errors import LabError

Done = subprocess.CompletedProcess[str]

PATH: Final = "/opt/unikeel-launcher:/opt/lab-tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
#: Where files of the host are put that are not there already.
TEMPORARY: Final = "/var/tmp"  # noqa: S108 - of the lab, which has one user
CONTAINERD_LOG: Final = "/var/log/containerd.log"
#: Waits for a process's end: $1 its number, $2 twentieths of a second.
_AWAIT_END: Final = 'i=0; while kill -0 "$1" 2>/dev/null; do i=$((i+1)); [ $i -lt "$2" ] || exit 1; sleep 0.05; done'
#: Waits for containerd: $1 its number, $2 its log, $3 twentieths of a second.
_AWAIT_START: Final = """
i=0
until grep -q 'containerd successfully booted' "$2"; do
    kill -0 "$1" 2>/dev/null || { tail -n 5 "$2" >&2; exit 1; }
    i=$((i+1)); [ $i -lt "$3" ] || { echo "it is still starting" >&2; exit 1; }
    sleep 0.05
done
"""
_START_SNAPSHOTTER: Final = """
for i in 1 2 3 4 5 6 7 8; do if unikeel snapshotter --detach; then exit 0; fi; done
cat /run/unikeel/snapshotter/daemon.log >&2; exit 1
"""
_SCRATCH_FILE: Final = (
    'rm -f "$1"; truncate -s "$2M" "$1"; mke2fs -q -F -t ext4 "$1"; debugfs -w -R "rmdir lost+found" "$1" 2>/dev/null'
)


class Place(ABC):
    """A world in which containerd runs."""

    #: How much slower than this host it is: time-outs of the lab's own are multiplied by it.
    slowness: float = 1

    def __init__(self) -> None:
        self._containerd = 0
        self._features: Features | None = None
        self._environment: dict[str, str] = {}

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes = b"",  # noqa: A002 - as in subprocess
        timeout: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> Done:
        """Run a program inside to its end.

        :param check: an exit status other than 0 is an error. :param env: added to the usual environment.
        :raise LabError: it failed, or took longer than ``timeout`` (it is killed then).
        """

    @abstractmethod
    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file inside; its directory is made."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Read a file inside. :raise LabError: it is not there."""

    @abstractmethod
    def take(self, path: str) -> str:
        """A file of the host, inside: its path there."""

    @property
    @abstractmethod
    def containerd_version(self) -> str:
        """Of the package."""

    @property
    def containerd_pid_inside(self) -> int:
        """containerd's process number in there; 0 if it does not run."""
        return self._containerd

    def ctr(
        self,
        *args: str,
        namespace: str = "default",
        timeout: float = 60,
        check: bool = True,
        input: str | bytes = b"",  # noqa: A002
    ) -> Done:
        """Run ``ctr``."""
        return self.run(
            ["ctr", "--namespace", namespace, *args], timeout=timeout * self.slowness, check=check, input=input
        )

    def start_containerd(
        self,
        snapshotter: str = "overlayfs",
        *,
        env: Mapping[str, str] | None = None,
        extra: str = "",
        image_mib: int = 256,
        cri: bool = True,
    ) -> None:
        """Start containerd with this default snapshotter. All the others that work here are configured, too; ``unikeel``, our own, is started by this if it
        is the default one, and by any daemon of ours else. ``btrfs`` works where one is mounted at :data:`lab.configuration.BTRFS`.

        :param env: of containerd, and so of the shims it starts. :param extra: appended to config.toml.
        :param image_mib: the size of an empty file system of blockfile and devmapper. :param cri: import the pause image.
        """
        major = int(self.containerd_version.partition(".")[0])
        btrfs = self._is_mounted(configuration.BTRFS)
        self._features = Features(snapshotter, major, self._has_thin_pool(), image_mib, extra, btrfs)
        self._environment = dict(env or {})
        self.put("/etc/containerd/config.toml", configuration.containerd(self._features).encode())
        self.put("/etc/cni/net.d/10-lab.conflist", configuration.cni().encode())
        self.put("/etc/crictl.yaml", configuration.crictl().encode())
        self.run(
            ["sh", "-ec", _SCRATCH_FILE, "sh", configuration.BLOCKFILE_SCRATCH, str(image_mib)],
            timeout=60 * self.slowness,
        )
        if snapshotter == configuration.UNIKEEL:
            self.start_snapshotter()
        self._launch()
        if cri:
            from lab import images

            self.import_image(images.archive("pause"), namespace="k8s.io")

    def start_snapshotter(self) -> None:
        """Start a daemon of ours that serves snapshots alone, unless one runs. The command gives up after half a minute, which may be short here."""
        self.run(["sh", "-ec", _START_SNAPSHOTTER], timeout=60 * self.slowness)

    def restart_containerd(self, *, kill: int = 15, env: Mapping[str, str] | None = None) -> None:
        """Kill containerd by this signal, wait for its end, and start it again with the same configuration."""
        self.stop_containerd(kill=kill)
        if env is not None:
            self._environment = dict(env)
        self._launch()

    def stop_containerd(self, *, kill: int = 15) -> None:
        """Kill containerd and wait for its end. What it started stays."""
        if self._containerd:
            script = f'kill -s "$3" "$1" 2>/dev/null; {_AWAIT_END}'
            argv = ["sh", "-c", script, "sh", str(self._containerd), str(int(400 * self.slowness)), str(int(kill))]
            self.run(argv, timeout=30 * self.slowness)
            self._containerd = 0

    def spawn(self, argv: Sequence[str], log: str, *, env: Mapping[str, str] | None = None) -> int:
        """Start a program that lives on, in a session of its own; its process number inside. What it prints is appended to ``log``."""
        words = [*(f"{name}={value}" for name, value in (env or {}).items()), *argv]
        done = self.run(
            ["sh", "-c", 'log=$1; shift; setsid env "$@" >>"$log" 2>&1 </dev/null & echo $!', "sh", log, *words]
        )
        return int(done.stdout)

    def logs(self) -> str:
        """containerd's log, whole."""
        return self.get(CONTAINERD_LOG).decode(errors="replace")

    def import_image(
        self, tar: str, *, snapshotter: str = "", namespace: str = "default", timeout: float = 120
    ) -> list[str]:
        """Import an archive of the host and unpack it; the names of its images."""
        chosen = snapshotter or (self._features.snapshotter if self._features else "overlayfs")
        before = self._images(namespace)
        words = ["images", "import", "--snapshotter", chosen]
        if self._features and self._features.version >= 2:
            words.append("--local")  # the transfer service unpacks into configured snapshotters only
        self.ctr(*words, self.take(tar), namespace=namespace, timeout=timeout)
        return sorted(self._images(namespace) - before)

    def _images(self, namespace: str) -> set[str]:
        return set(self.ctr("images", "ls", "-q", namespace=namespace).stdout.split())

    def _launch(self) -> None:
        self.run(["sh", "-c", ': > "$1"', "sh", CONTAINERD_LOG])
        self._containerd = self.spawn(["containerd"], CONTAINERD_LOG, env=self._environment)
        argv = ["sh", "-c", _AWAIT_START, "sh", str(self._containerd), CONTAINERD_LOG, str(int(400 * self.slowness))]
        done = self.run(argv, timeout=30 * self.slowness, check=False)
        if done.returncode:
            raise LabError(f"containerd does not start: {tail(done.stderr)}")

    def _is_mounted(self, path: str) -> bool:
        return self.run(["mountpoint", "-q", path], check=False).returncode == 0

    def _has_thin_pool(self) -> bool:
        return self.run(["test", "-e", f"/dev/mapper/{configuration.THIN_POOL}"], check=False).returncode == 0


def checked(done: Done, *, check: bool) -> Done:
    """The same, unless it failed and that matters."""
    if check and done.returncode:
        raise LabError(
            f"`{shown([str(word) for word in done.args])}` failed with exit status {done.returncode}: {tail(done.stderr or done.stdout)}"
        )
    return done
