"""A real sandbox: the OCI runtime is run as the keeper runs it, with the same kind of bundle, around a program that does nothing."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from unikeel.doctor.findings import Finding, Level, attempt
from unikeel.errors import Unavailable

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.keeper.client import KeeperClient
    from unikeel.sandbox.runtime import Runtime

_PROGRAM: Final = "/usr/bin/true"
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICE: Final = "/dev/kvm"
_SECONDS: Final = 30.0
#: How long the keeper of a trial stays when it is done; time enough to connect to it.
_IDLE_SECONDS: Final = 0.5
_OUTPUT: Final = 64 << 10
_MEND: Final = (
    "apt-get install crun (or runc), and see which cgroups the host has; --no-sandbox runs a trial without confinement"
)


def runtimes(config: Config, place: str) -> list[Finding]:
    """The runtime that containers get, tried; and the other one, if it is installed."""
    from unikeel.kernel.paths import find_program
    from unikeel.sandbox.runtime import find_runtime

    try:
        chosen = find_runtime(config.sandbox_runtime)
    except Unavailable as error:
        return [Finding("sandbox", Level.PROBLEM, error.message, error.hint or _MEND)]
    findings = [attempt("sandbox", Level.PROBLEM, _MEND, lambda: _tried(chosen, config, place))]
    for name in ("crun", "runc"):
        path = find_program(name)
        if path and name != chosen.name:
            mend = f"containers use {chosen.name}, so this is no loss"
            other = partial(_tried, chosen._replace(name=name, path=path), config, place)
            findings.append(attempt(name, Level.WARNING, mend, other))
    return findings


def _tried(runtime: Runtime, config: Config, place: str) -> str:
    """Run the trial. :raise Unavailable: it failed; the message has the runtime's words."""
    from unikeel.doctor.programs import said
    from unikeel.keeper.client import KeeperClient, KeeperSettings

    keeper = KeeperClient(KeeperSettings(place, idle=_IDLE_SECONDS, view_idle=_IDLE_SECONDS))
    try:
        pid = _keeper_pid(keeper)
        status, words = _run(keeper, runtime, config, place)
    finally:
        keeper.close()
    _wait_for(pid)
    if status != 0:
        from unikeel.sandbox.runtime import last_line

        raise Unavailable(f"{runtime.name} cannot make a sandbox here: {last_line(words)}", _MEND)
    return f"{said(runtime.name)} made a sandbox with limits ({_cgroups()})"


def _keeper_pid(keeper: KeeperClient) -> int:
    pid = keeper.connection().call({"op": "hello"}).get("pid")
    return pid if isinstance(pid, int) else 0


def _run(keeper: KeeperClient, runtime: Runtime, config: Config, place: str) -> tuple[int, str]:
    ident = f"doctor-{os.getpid()}-{runtime.name}"
    base = [runtime.path, "--root", os.path.join(place, f"state-{runtime.name}")]
    bundle = _bundle(runtime, config, place, ident)
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        status = keeper.spawn([*base, "run", f"--bundle={bundle}", ident], output, seconds=_SECONDS)
        words = os.pread(output, _OUTPUT, 0).decode(errors="replace")
        if status != 0:
            keeper.spawn([*base, "delete", "--force", ident], output, seconds=_SECONDS)
    finally:
        os.close(output)
    return status, words


def _bundle(runtime: Runtime, config: Config, place: str, ident: str) -> str:
    """A bundle as a container's, by the same functions."""
    import json

    from unikeel.model.plan import ExitRule, LaunchPlan
    from unikeel.sandbox.root import prepare_root
    from unikeel.sandbox.spec import SandboxRequest, build

    plan = LaunchPlan(
        argv=(_PROGRAM,),
        files=(),
        devices=(_DEVICE,) if os.path.exists(_DEVICE) else (),
        environment=(),
        memory_mib=16,
        binds=tuple(path for path in (_PROGRAM, *_LIBRARIES) if os.path.exists(path)),
        exit=ExitRule.SAME,
        powerdown=False,
    )
    request = SandboxRequest(
        ident=ident,
        plan=plan,
        root=os.path.join(place, "root"),
        cgroup=f"/unikeel/{ident}",
        uid=config.sandbox_uid_base + config.sandbox_uid_count - 1,
        vcpus=1,
        allowance=config.sandbox_monitor_allowance,
    )
    prepare_root(request.root, plan.binds)
    bundle = os.path.join(place, f"bundle-{runtime.name}")
    os.mkdir(bundle, 0o700)
    with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump(build(request), file)
    return bundle


def _wait_for(pid: int) -> None:
    """Wait until the keeper of this trial is gone, so that nothing of it stays; it goes at once."""
    from unikeel.kernel import pidfd

    if pid > 1:
        try:
            with pidfd.open_pid(pid) as process:
                pidfd.wait_exit(process, 5.0)
        except (OSError, Unavailable):
            return


def _cgroups() -> str:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "cgroups version 2"
    hybrid = os.path.exists("/sys/fs/cgroup/unified/cgroup.procs")
    return "cgroups version 1 and 2 side by side" if hybrid else "cgroups version 1"
