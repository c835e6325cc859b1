"""A prompt in the lab, for a person."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator

from lab import images, tools
from lab.commands import Progress
from lab.machine import Machine
from lab.native import Native
from lab.place import Place

_GREETING = """
The lab: {where}, with containerd {version} and {snapshotter} as the default snapshotter. The working tree is at /unikeel (read-only), `unikeel` runs it;
`ctr` and{crictl} `crictl` talk to containerd, whose log is {log}. Imported: {images}. Try
    ctr run --rm --snapshotter {snapshotter} --runtime io.containerd.runc.v2 {busybox} one sh -c 'echo here; exit 3'; echo $?
Everything you do here is gone when you leave.
"""


def shell(where: str, snapshotter: str) -> int:
    """Open one, in ``trixie``, ``sid`` or ``vm``; the shell's exit code."""
    tell = Progress()
    tell(f"starting {where}")
    if where == "vm":
        with Machine() as machine:
            tell("starting containerd")
            machine.start_containerd(snapshotter or "devmapper")
            tell("")
            _greet(machine, "a virtual machine", snapshotter or "devmapper")
            return _in_machine(machine)
    chosen = snapshotter or ("erofs" if where == "sid" else "overlayfs")
    with Native(where, chosen) as native:
        tell("")
        _greet(native, f"Debian {where} in namespaces of this host", chosen)
        return _in_native(native)


def _greet(place: Place, where: str, snapshotter: str) -> None:
    place.import_image(images.archive("busybox"))
    text = _GREETING.format(
        where=where,
        version=place.containerd_version,
        snapshotter=snapshotter,
        crictl="" if tools.crictl() else " (not here)",
        log="/var/log/containerd.log",
        images=images.BUSYBOX,
        busybox=images.BUSYBOX,
    )
    print(text, file=sys.stderr)


def _in_native(native: Native) -> int:
    environment = {"TERM": os.environ.get("TERM", "xterm")}
    prompted = f"PS1='lab {native.root.name}:\\w# ' exec bash --norc -i"
    # A terminal of the lab's own: this one's name and process group mean nothing in there.
    argv = ["script", "-qefc", prompted, "/dev/null"] if sys.stdin.isatty() else ["bash"]
    with native.popen(argv, env=environment, cwd="/root") as process:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # it is the shell's
                return process.wait()


def _in_machine(machine: Machine) -> int:
    if not sys.stdin.isatty():
        done = machine.run(["bash"], input=sys.stdin.read(), timeout=3600, check=False)
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        return done.returncode
    size = shutil.get_terminal_size()
    code = [0]
    stop, stopped = os.pipe()

    def talk() -> None:
        code[0] = machine.shell(["bash", "--norc", "-i"], size.lines, size.columns, os.environ.get("TERM", "xterm"))
        os.close(stopped)

    threading.Thread(target=talk, daemon=True).start()
    assert machine.terminal is not None
    with _raw():
        _move(machine.terminal, stop)
    os.close(stop)
    return code[0]


def _move(terminal: socket.socket, stop: int) -> None:
    """Bytes both ways, until ``stop`` ends."""
    while True:
        ready, _, _ = select.select([terminal.fileno(), 0, stop], [], [])
        if 0 in ready:
            terminal.sendall(os.read(0, 4096))
        if terminal.fileno() in ready:
            os.write(1, terminal.recv(4096))
        elif stop in ready:
            return


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
