"""Whether to use KVM: measured, once per boot of the host, instead of believed from /dev/kvm's being there.

:mod:`unikeel.monitors.probe_guest` runs under TCG and under KVM, with the very processor model that guests get, under a deadline
of a second each. KVM is chosen only if it was the faster. The answer is kept in ``CACHE/accel.json`` for this boot, this QEMU and this
/dev/kvm; commands that come at the same time wait for the first one's answer (flock).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.errors import InvalidArgument, Unavailable
from unikeel.lean import Final
from unikeel.monitors.contract import Facts
from unikeel.monitors.memory import read_memory, write_memory
from unikeel.records.owners import boot_id
from unikeel.values import NamedTuple

#: Seconds that the guest may take under each accelerator.
DEADLINE: Final = 1.0
KVM: Final = "/dev/kvm"
_FILE: Final = "accel.json"
_STDERR_LIMIT: Final = 4096


class Acceleration(NamedTuple):
    """What was chosen and why. Figures are milliseconds from exec to exit of the measuring guest; None: not measured or failed."""

    accel: str
    reason: str
    kvm_ms: float | None = None
    tcg_ms: float | None = None


class Run(NamedTuple):
    """One run of the measuring guest: its time, or why there is none."""

    ms: float | None
    failure: str


def choose_accel(setting: str, facts: Facts, cache: str) -> Acceleration:
    """The accelerator for guests on this host.

    :param setting: ``auto``, or the user's ``kvm`` or ``tcg``, which are taken at their word.
    :param cache: the directory where the answer is kept; an empty string keeps nothing.
    :raises Unavailable: KVM is wanted, and there is no way to open /dev/kvm.
    :raises InvalidArgument: another setting.
    """
    if setting == "tcg":
        return Acceleration("tcg", "configured")
    problem = kvm_problem()
    if setting == "kvm":
        if problem:
            raise Unavailable(f"KVM is configured, but {problem}", "set monitor.accel to auto")
        return Acceleration("kvm", "configured")
    if setting != "auto":
        raise InvalidArgument(f"accelerator {setting!r} is unknown", "known: auto, kvm, tcg")
    if problem:
        return Acceleration("tcg", problem)
    return _measured_once(facts, cache) if cache else measure(facts)


def kvm_problem() -> str:
    """Why /dev/kvm cannot be opened; an empty string if it can."""
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{KVM} cannot be opened: {error.strerror}"
    return ""


def measure(facts: Facts) -> Acceleration:
    """Run the guest both ways and compare. Takes at most two deadlines, usually a quarter of a second."""
    tcg = run_guest(facts, "tcg", DEADLINE)  # first: it warms QEMU's files for the one that has to be faster
    return decide(kvm=run_guest(facts, "kvm", DEADLINE), tcg=tcg)


def decide(*, kvm: Run, tcg: Run) -> Acceleration:
    """The choice between two runs."""
    if kvm.ms is None:
        return Acceleration("tcg", f"KVM does not work: {kvm.failure}", None, tcg.ms)
    if tcg.ms is not None and tcg.ms <= kvm.ms:
        reason = f"KVM is slower than emulation here ({kvm.ms:.0f} ms against {tcg.ms:.0f})"
        return Acceleration("tcg", reason, kvm.ms, tcg.ms)
    against = f" against {tcg.ms:.0f}" if tcg.ms is not None else "; emulation failed"
    return Acceleration("kvm", f"KVM works ({kvm.ms:.0f} ms{against})", kvm.ms, tcg.ms)


def run_guest(facts: Facts, accel: str, deadline: float) -> Run:
    """Run the measuring guest once; a QEMU that does not end in time is killed and reaped.

    :param accel: ``kvm`` or ``tcg``. :param deadline: seconds.
    """
    import signal
    import time

    from unikeel.kernel.memfd import sealed_bytes
    from unikeel.kernel.process import spawn
    from unikeel.monitors import probe_guest

    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        with sealed_bytes("probe-guest", probe_guest.image()) as kernel:
            begin = time.monotonic_ns()
            # KVM that does not work can keep it for long: it does not outlive us.
            process = spawn(_command(facts, accel), {"LC_ALL": "C"}, {2: stderr, 3: kernel.fileno()}, bound=True)
            ended = process.wait(deadline)
            took = (time.monotonic_ns() - begin) / 1e6
            if ended is None:
                process.send(signal.SIGKILL)
                process.wait()
                return Run(None, f"a short loop had not ended after {deadline:g} s")
        if ended.signal == 0 and ended.code == probe_guest.EXIT_STATUS:
            return Run(took, "")
        return Run(None, _failure(ended.code, ended.signal, os.pread(stderr, _STDERR_LIMIT, 0)))
    finally:
        os.close(stderr)


def _command(facts: Facts, accel: str) -> list[str]:
    from unikeel.monitors.probe_guest import PORT
    from unikeel.monitors.qemu import ACCELERATORS

    accelerator, processor = ACCELERATORS[accel]
    return [
        *(facts.path, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "16M"),
        *("-machine", "microvm", "-accel", accelerator, "-cpu", processor),
        *("-device", f"isa-debug-exit,iobase={PORT:#x},iosize=2", "-kernel", "/proc/self/fd/3"),
    ]


def _failure(code: int, number: int, stderr: bytes) -> str:
    from unikeel.monitors.qemu import MONITOR

    how = f"QEMU was killed by signal {number}" if number else f"QEMU ended with status {code}"
    why = MONITOR.complaint(stderr)
    return f"{how}: {why[:200]}" if why else how


def _measured_once(facts: Facts, cache: str) -> Acceleration:
    key = f"{boot_id()} {facts.identity}"
    found = _remembered(cache, key)
    if found is not None:
        return found
    with _lock(cache):
        found = _remembered(cache, key)
        if found is None:
            found = measure(facts)
            write_memory(cache, _FILE, {"key": key, **found._asdict()})
        return found


def _remembered(cache: str, key: str) -> Acceleration | None:
    content = read_memory(cache, _FILE)
    accel, reason, kvm_ms, tcg_ms = (content.get(name) for name in Acceleration._fields)
    if content.get("key") != key or accel not in ("kvm", "tcg") or not isinstance(reason, str):
        return None
    return Acceleration(str(accel), reason, _figure(kvm_ms), _figure(tcg_ms))


def _figure(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@contextmanager
def _lock(cache: str) -> Iterator[None]:
    """One measurement at a time; the lock goes with its holder. Where no file can be made, everybody measures."""
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(cache, "accel.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
