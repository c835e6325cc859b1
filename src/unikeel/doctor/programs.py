"""The programs that unikeel uses: QEMU, with KVM measured against emulation; passt; skopeo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from unikeel.doctor.findings import Finding, Level, attempt
from unikeel.errors import Unavailable
from unikeel.kernel.paths import PROGRAM_DIRECTORIES
from unikeel.kernel.process import find_program, spawn

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.monitors.contract import Facts
    from unikeel.monitors.kvm_probe import Acceleration

_PATH: Final = ":".join(PROGRAM_DIRECTORIES)
_SECONDS: Final = 20.0
_OUTPUT: Final = 4096
_QEMU: Final = "install the package qemu-system-x86, version 7.2 or later"


def qemu(config: Config, cache: str) -> list[Finding]:
    """QEMU, and what its guests are accelerated by. ``cache``: where facts are kept, or empty."""
    from unikeel.monitors import monitor

    found: list[Facts] = []

    def probe() -> str:
        facts = monitor("qemu").probe(config.monitor_qemu_path, cache)
        found.append(facts)
        return f"QEMU {'.'.join(map(str, facts.version))} ({facts.path})"

    findings = [attempt("qemu", Level.PROBLEM, _QEMU, probe)]
    return findings + (acceleration(config, found[0], cache) if found else [])


def acceleration(config: Config, facts: Facts, cache: str) -> list[Finding]:
    """KVM as it was measured, and a guest really run under emulation."""
    from unikeel.monitors.kvm_probe import choose_accel, run_guest

    try:
        chosen = choose_accel(config.monitor_accel, facts, cache)
    except Unavailable as error:
        return [Finding("kvm", Level.PROBLEM, error.message, error.hint)]
    tcg = run_guest(facts, "tcg", _SECONDS)
    emulation = (
        Finding("tcg", Level.OK, f"a small guest ran under emulation in {tcg.ms:.0f} ms")
        if tcg.ms is not None
        else Finding("tcg", Level.WARNING, f"emulation does not work: {tcg.failure}", "reinstall QEMU")
    )
    if tcg.ms is None and chosen.accel == "tcg":
        emulation = emulation._replace(level=Level.PROBLEM)
    return [_kvm(chosen), emulation]


def _kvm(chosen: Acceleration) -> Finding:
    if chosen.accel == "kvm":
        return Finding("kvm", Level.OK, chosen.reason if chosen.kvm_ms else "KVM is configured; it was not measured")
    if chosen.reason == "configured":
        return Finding("kvm", Level.OK, "emulation is configured; KVM was not tried")
    mend = "guests are emulated, which is slower; enable virtualization in the firmware or the hypervisor, load kvm_intel or kvm_amd"
    return Finding("kvm", Level.WARNING, chosen.reason, mend)


def others(config: Config, cache: str) -> list[Finding]:
    """The monitors beside QEMU, none of which must be there: which guests each runs, or what keeps it from that."""
    from unikeel.model.names import PAIRS
    from unikeel.monitors import monitor, offered

    findings: list[Finding] = []
    for name in offered():
        if name == "qemu":
            continue
        guests = ", ".join(PAIRS[name])
        try:
            facts = monitor(name).probe(config.monitor_path(name), cache)
        except Unavailable as error:
            text = f"not there, needed for {guests} only: {error.message}"
            findings.append(Finding(f"monitor-{name}", Level.OK, text, error.hint))
            continue
        version = ".".join(map(str, facts.version))
        findings.append(Finding(f"monitor-{name}", Level.OK, f"{name} {version} ({facts.path}) runs {guests}"))
    return findings


def virtiofsd(config: Config) -> Finding:
    """What sharing directories by virtiofs needs."""
    from unikeel.sandbox import file_server

    try:
        return Finding(
            "virtiofsd",
            Level.OK,
            f"directories can be shared by virtiofs ({file_server.find(config.monitor_virtiofsd_path)})",
        )
    except Unavailable as error:
        return Finding(
            "virtiofsd", Level.OK, f"not there, directories are shared by 9p only: {error.message}", error.hint
        )


def passt() -> Finding:
    """What user-mode networking needs."""
    mend = "apt-get install passt; until then guests run with --net none only"
    return attempt("passt", Level.WARNING, mend, lambda: said("passt"))


def skopeo() -> Finding:
    """What pulling needs."""
    mend = "apt-get install skopeo; until then images can be loaded, not pulled"
    return attempt("skopeo", Level.WARNING, mend, lambda: said("skopeo"))


def said(name: str) -> str:
    """The first line of ``NAME --version``, and where the program is. :raise Unavailable: it is missing or does not answer."""
    path = find_program(name, _PATH)
    output = os.memfd_create("version", os.MFD_CLOEXEC)
    try:
        process = spawn([path, "--version"], {"PATH": _PATH, "LC_ALL": "C", "HOME": "/"}, {1: output, 2: output})
        ended = process.wait(_SECONDS)
        if ended is None:
            import signal

            process.send(signal.SIGKILL)
            process.wait()
            raise Unavailable(f"{path} did not say its version in {_SECONDS:.0f} s")
        lines = os.pread(output, _OUTPUT, 0).decode(errors="replace").splitlines()
    finally:
        os.close(output)
    first = next((line.strip() for line in lines if line.strip()), "")
    if ended.code or ended.signal:
        raise Unavailable(f"{path} --version failed: {first[:200]}")
    return f"{first[:100]} ({path})"
