"""A virtual machine with Debian's kernel and containerd 1.7: for device-mapper, which this host's kernel may lack, and for systemd.

::

    with Machine() as machine:
        machine.start_containerd("devmapper")
        print(machine.run(["dmsetup", "ls"]).stdout)

It boots from the built disk and writes to a layer of its own, discarded at the end (``keep=True``: kept for the next such machine). The working tree comes as a
second disk, made at each start, at ``/unikeel``; ``/dev/mapper/pool`` is a thin pool; cgroups are plain v2. There is no network but the loopback.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from lab import disk, leftovers
from lab.channel import Channel
from lab.commands import clean_environment, run, shown
from lab.errors import LabError
from lab.paths import PREFIX, PROJECT, cache
from lab.place import ENVIRONMENT, TEMPORARY, Done, Place, checked
from lab.root import opened

_WARDEN: Final = os.path.join(PROJECT, "lab", "inside", "warden.py")
_PIECE: Final = 4 << 20
_GRACE: Final = 60.0
#: Without AVX: emulating it makes checksums and Go programs slower, not faster.
_CPU: Final = "Nehalem"


class Machine(Place):
    """A virtual machine; a context manager.

    :param keep: keep what it writes, for the next machine that is started so.
    :param systemd: boot Debian's systemd, with the agent as a unit of it, instead of the lab's own first process.
    :param memory: MiB. :param pool_mib: the thin pool's data. :param boot_seconds: the patience with its start.
    :param disks: files of the host as further disks, ``/dev/vdc`` and so on. What the machine writes there goes past the host's cache, and stays.
    """

    slowness = 8

    def __init__(
        self,
        *,
        keep: bool = False,
        systemd: bool = False,
        memory: int = 4096,
        pool_mib: int = 6144,
        boot_seconds: float = 180,
        disks: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._disk = disk.opened()
        self.identity = secrets.token_hex(6)
        self.scratch = cache("scratch", PREFIX + self.identity)
        self._keep, self._systemd, self._memory = keep, systemd, memory
        self._pool, self._boot_seconds, self._disks = pool_mib, boot_seconds, disks
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._channel: Channel | None = None
        #: The other port, for a shell.
        self.terminal: socket.socket | None = None
        self._kernel = ""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.close()
        if left and error is None:
            raise LabError(f"the lab's machine left something behind: {', '.join(left)}")

    def open(self) -> None:
        """Boot it, as ``with`` does."""
        leftovers.sweep()
        try:
            self._boot()
            self._kernel = self._talk.greeting(self._boot_seconds)
        except LabError as error:
            console = self.console()[-600:].strip()
            self.close()
            raise LabError(f"{error}; its console ends with: {' | '.join(console.splitlines()) or 'nothing'}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> list[str]:
        """End it, and remove what it wrote; what could not be removed. A machine that is kept is shut down, others are just ended."""
        if self._process is not None:
            if self._keep and self._process.poll() is None and self._channel is not None:
                with contextlib.suppress(LabError):  # then the file system is recovered at its next mount
                    self.run(["sync"], timeout=60)
            os.close(self._lifeline)
            self._lifeline = -1
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.terminal is not None:
            self.terminal.close()
            self.terminal = None
        self._containerd = 0
        return leftovers.remove(self.identity)

    @property
    def containerd_version(self) -> str:
        """Of the package."""
        return opened("trixie").versions["containerd"]

    @property
    def kernel(self) -> str:
        """The release of its kernel."""
        return self._kernel

    def console(self) -> str:
        """What its kernel and first processes printed."""
        try:
            with open(os.path.join(self.scratch, "console.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes = b"",  # noqa: A002
        timeout: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> Done:
        """See :meth:`lab.place.Place.run`. Commands of several threads run at once."""
        content = input.encode() if isinstance(input, str) else input
        request = {"argv": [*argv], "env": ENVIRONMENT | dict(env or {}), "cwd": cwd}
        answer, back = self._talk.ask("run", timeout + _GRACE, content, **request, seconds=timeout)
        if answer["late"]:
            raise LabError(f"`{shown(argv)}` has not ended after {timeout:.0f} s in the lab's machine")
        output, errors = back[: answer["out"]], back[answer["out"] :]
        return checked(
            Done([*argv], answer["code"], output.decode(errors="replace"), errors.decode(errors="replace")), check=check
        )

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """See :meth:`lab.place.Place.put`."""
        for offset in range(0, max(len(data), 1), _PIECE):
            self._talk.ask("put", _GRACE, data[offset : offset + _PIECE], path=path, mode=mode, offset=offset)

    def get(self, path: str) -> bytes:
        """See :meth:`lab.place.Place.get`."""
        content = bytearray()
        while True:
            answer, piece = self._talk.ask("get", _GRACE, path=path, offset=len(content), limit=_PIECE)
            content += piece
            if not answer["more"]:
                return bytes(content)

    def take(self, path: str) -> str:
        """See :meth:`lab.place.Place.take`. What is on the working tree's disk is there already."""
        status = os.stat(path)
        if (there := disk.in_tree(path)) and self._is(there, status.st_size, int(status.st_mtime)):
            return there
        inside = f"{TEMPORARY}/{secrets.token_hex(4)}-{os.path.basename(path)}"
        with open(path, "rb") as file:
            offset = 0
            while piece := file.read(_PIECE):
                self._talk.ask("put", _GRACE, piece, path=inside, mode=0o644, offset=offset)
                offset += len(piece)
        return inside

    def shell(self, argv: Sequence[str], rows: int, columns: int, term: str) -> int:
        """Run a program on the machine's terminal port until it ends; its exit code. Who calls moves the bytes of :attr:`terminal`."""
        environment = ENVIRONMENT | {"TERM": term, "PS1": "vm:\\w# "}
        answer, _ = self._talk.ask("shell", 1e6, argv=[*argv], env=environment, rows=rows, columns=columns)
        return int(answer["code"])

    def _is(self, path: str, size: int, modified: int) -> bool:
        """Whether a file on the working tree's disk is still the host's, which may be newer than the disk."""
        return self.run(["stat", "-c", "%s %Y", path], check=False).stdout.split() == [str(size), str(modified)]

    @property
    def _talk(self) -> Channel:
        if self._channel is None:
            raise LabError("the lab's machine is not started")
        return self._channel

    def _boot(self) -> None:
        lock = leftovers.claim(self.scratch)  # the warden and the machine hold it
        tree = disk.tree(os.path.join(self.scratch, "tree.ext4"))
        mine, theirs = socket.socketpair()
        self.terminal, far = socket.socketpair()
        life, self._lifeline = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-I", "-S", _WARDEN, str(life), *self._command(tree, theirs.fileno(), far.fileno())]
        with open(os.path.join(self.scratch, "qemu.log"), "wb") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment() | {"TMPDIR": self.scratch},
                pass_fds=(life, lock, theirs.fileno(), far.fileno()),
                start_new_session=True,
            )
        for end in (theirs, far):
            end.close()
        os.close(life)
        os.close(lock)
        self._channel = Channel(mine)

    def _command(self, tree: str, agent: int, terminal: int) -> list[str]:
        words = [
            "console=ttyS0",
            "root=/dev/vda",
            "rw",
            "quiet",
            "loglevel=3",
            "panic=-1",
            "mitigations=off",
            "tsc=unstable",
            "net.ifnames=0",
        ]
        words += [f"LAB_POOL_MIB={self._pool}"]
        words.append("init=/usr/lib/systemd/systemd" if self._systemd else "init=/opt/lab-init")
        root = f"file={self._root()},format=qcow2" if self._keep else f"file={self._disk.image},format=raw,snapshot=on"
        return [
            "qemu-system-x86_64",
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *(
                "-machine",
                "q35,usb=off,vmport=off",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                _CPU,
                "-smp",
                "2",
                "-m",
                str(self._memory),
            ),
            *("-kernel", self._disk.kernel, "-initrd", self._disk.initrd, "-append", " ".join(words)),
            *("-drive", f"{root},if=virtio,cache=unsafe,discard=unmap"),
            *("-drive", f"file={tree},format=raw,if=virtio,readonly=on"),
            *(word for path in self._disks for word in ("-drive", f"file={path},format=raw,if=virtio,cache=none")),
            *("-serial", f"file:{os.path.join(self.scratch, 'console.log')}"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *(
                "-chardev",
                f"socket,id=agent,fd={agent}",
                "-device",
                "virtserialport,chardev=agent,name=org.unikeel.lab",
            ),
            *(
                "-chardev",
                f"socket,id=terminal,fd={terminal}",
                "-device",
                "virtserialport,chardev=terminal,name=org.unikeel.lab.terminal",
            ),
        ]

    def _root(self) -> str:
        """The layer that is kept, made anew when the disk below it is another one."""
        identity = opened("trixie").identity[:16]
        path = cache("kept", f"{identity}.qcow2")
        if not os.path.exists(path):
            shutil.rmtree(cache("kept"), ignore_errors=True)
            os.makedirs(cache("kept"))
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self._disk.image, path])
        return path
