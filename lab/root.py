"""A root file system with a containerd: debootstrap, a few packages, a Python environment; built once and recorded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import IO, Any, Final, NamedTuple

from lab import python, recipe
from lab.commands import Tell, clean_environment, run
from lab.errors import LabError
from lab.paths import cache, locked
from lab.recipe import RECORDED, ROOTS, Recipe

_SECONDS: Final = 1200
#: Inside a private mount namespace, with the pseudo file systems that package scripts want.
_INSTALL: Final = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"; mount --rbind /dev "$root/dev"
exec chroot "$root" apt-get -q -y install --no-install-recommends "$@"
"""


class LabRoot(NamedTuple):
    """A root that is built: its directory, and what was recorded about it."""

    name: str
    path: str
    versions: dict[str, str]
    identity: str

    @property
    def lock(self) -> str:
        """The lock file that who uses the root holds shared."""
        return cache("roots", f"{self.name}.lock")


def opened(name: str) -> LabRoot:
    """A root that was built before. :raise LabError: it was not."""
    record = _record(_recipe(name))
    if not record.get("python"):
        raise LabError(f"the lab's root {name} is not built: make lab builds it")
    return _root(name, record)


def built(name: str, tell: Tell) -> LabRoot:
    """A root, built or brought up to date."""
    wanted = _recipe(name)
    recipe_now, python_now = _recipe_fingerprint(wanted), python.fingerprint()
    record = _record(wanted)
    if record.get("recipe") == recipe_now and record.get("python") == python_now:
        return _root(name, record)
    with locked(cache("roots", f"{name}.lock")):
        record = _record(wanted)
        with open(cache("roots", f"{name}.log"), "wb") as log:
            if record.get("recipe") != recipe_now:
                record = {"recipe": recipe_now, "versions": _build(wanted, tell, log)}
                _write(wanted, record)
            if record.get("python") != python_now:
                _write(wanted, record | {"python": ""})
                tell(f"{name}: a Python environment")
                record["versions"] |= python.install(_path(wanted), log)
                record["python"] = python_now
                _write(wanted, record)
    return _root(name, record)


def _build(wanted: Recipe, tell: Tell, log: IO[bytes]) -> dict[str, str]:
    final, part = _path(wanted), _path(wanted) + ".part"
    for old in (part, final):
        shutil.rmtree(old, ignore_errors=True)
    environment = clean_environment()
    try:
        tell(f"{wanted.name}: debootstrap of Debian {wanted.suite}")
        run(
            ["debootstrap", "--variant=minbase", wanted.suite, part, mirror()],
            timeout=_SECONDS,
            environment=environment,
            log=log,
        )
        _prepare(part)
        tell(f"{wanted.name}: {len(wanted.packages)} packages and what they need")
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSTALL, "sh", part, *wanted.packages]
        run(argv, timeout=_SECONDS, environment=environment, log=log)
        _finish(part, boots=wanted.boots)
        versions = _versions(part)
        os.rename(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return versions


def _prepare(root: str) -> None:
    _write_text(root, "etc/dpkg/dpkg.cfg.d/lab", recipe.DPKG)
    _write_text(root, "etc/apt/apt.conf.d/99lab", 'Acquire::Languages "none";\nAPT::Sandbox::User "root";\n')
    _write_text(root, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    _write_text(root, "etc/initramfs-tools/conf.d/lab", "MODULES=list\nCOMPRESS=zstd\nRESUME=none\n")
    _write_text(root, "etc/initramfs-tools/modules", "".join(f"{name}\n" for name in recipe.INITRD_MODULES))
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copyfile(f"/{name}", os.path.join(root, name))


def _finish(root: str, *, boots: bool) -> None:
    for name in ("usr/sbin/policy-rc.d", "etc/resolv.conf", "etc/machine-id"):
        os.unlink(os.path.join(root, name)) if os.path.lexists(os.path.join(root, name)) else None
    for name in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/cache/debconf",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
    ):
        shutil.rmtree(os.path.join(root, name), ignore_errors=True)
    _write_text(root, "etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n")
    _write_text(root, "etc/hostname", "lab\n")
    _write_text(root, "etc/machine-id", "")
    for name in recipe.MOUNT_POINTS:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    if boots:
        _write_text(root, "opt/lab-init", recipe.FIRST_INIT, 0o755)
        _write_text(root, "etc/systemd/system/lab-agent.service", recipe.AGENT_UNIT)
        wants = os.path.join(root, "etc/systemd/system/multi-user.target.wants")
        os.makedirs(wants, exist_ok=True)
        os.symlink("/etc/systemd/system/lab-agent.service", os.path.join(wants, "lab-agent.service"))
        if os.path.lexists(own := os.path.join(wants, "containerd.service")):
            os.unlink(own)  # the lab starts it, with its own configuration


def mirror() -> str:
    """The mirror of Debian that this host's apt uses."""
    lines = run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(SUITE) $(REPO_URI)", "Created-By: Packages"]
    )
    for line in lines.splitlines():
        origin, codename, suite, uri = [*line.split(" "), "", "", ""][:4]
        if origin == "Debian" and "-" not in codename and "updates" not in suite:
            return uri.rstrip("/")
    raise LabError("apt of this host names no mirror of Debian: apt-get indextargets lists what it knows")


def _versions(root: str) -> dict[str, str]:
    lines = run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"]
    )
    fields = (line.split(" ") for line in lines.splitlines())
    return {name: version for name, state, version in fields if name in RECORDED and state == "installed"}


def _recipe(name: str) -> Recipe:
    if name not in ROOTS:
        raise LabError(f"the lab has no root {name}, only {', '.join(ROOTS)}")
    return ROOTS[name]


def _recipe_fingerprint(wanted: Recipe) -> str:
    text = repr(
        (
            wanted,
            recipe.MOUNT_POINTS,
            recipe.DPKG,
            recipe.INITRD_MODULES,
            recipe.AGENT_UNIT,
            recipe.FIRST_INIT,
            _INSTALL,
        )
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _path(wanted: Recipe) -> str:
    return cache("roots", wanted.name)


def _root(name: str, record: dict[str, Any]) -> LabRoot:
    identity = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return LabRoot(name, cache("roots", name), dict(record["versions"]), identity)


def _record(wanted: Recipe) -> dict[str, Any]:
    try:
        with open(_path(wanted) + ".json", encoding="utf-8") as file:
            record = json.load(file)
        return record if isinstance(record, dict) and os.path.isdir(_path(wanted)) else {}
    except (FileNotFoundError, ValueError):
        return {}


def _write(wanted: Recipe, record: dict[str, Any]) -> None:
    path = _path(wanted) + ".json"
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, sort_keys=True)
    os.replace(path + ".new", path)


def _write_text(root: str, name: str, text: str, mode: int = 0o644) -> None:
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
