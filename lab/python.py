"""The Python environment of a root: its own interpreter, and the locked versions of what the package imports."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import IO, Final

from lab.commands import clean_environment, run
from lab.errors import LabError
from lab.paths import PROJECT

#: Beside what pyproject.toml names.
_ALSO: Final = ("protobuf", "grpclib")
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_NAME: Final = re.compile(r"^[A-Za-z0-9._-]+")
#: Where the environment lies inside.
INSIDE: Final = "/opt/unikeel"
_COMMAND: Final = f"""\
#!{INSIDE}/bin/python
import sys

from unikeel.cli.main import entry

sys.exit(entry())
"""
_INSTALL: Final = """
set -e
root=$1; wheels=$2; certificates=$3; shift 3
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
cp /etc/resolv.conf "$root/run/resolv.conf"; touch "$root/etc/resolv.conf"; mount --bind "$root/run/resolv.conf" "$root/etc/resolv.conf"
if [ -n "$wheels" ]; then mkdir "$root/run/wheels"; mount --bind "$wheels" "$root/run/wheels"; fi
if [ -n "$certificates" ]; then mount --bind "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"; fi
chroot "$root" python3 -m venv --without-pip /opt/unikeel
chroot "$root" python3 -m venv /run/installer
exec chroot "$root" /run/installer/bin/python -m pip --python /opt/unikeel/bin/python install "$@"
"""


def requirements() -> list[str]:
    """What is installed: the package's own dependencies, each at its locked version where there is one."""
    with open(os.path.join(PROJECT, "pyproject.toml"), "rb") as file:
        wanted = [*tomllib.load(file)["project"]["dependencies"], *_ALSO]
    with open(os.path.join(PROJECT, "requirements.lock"), encoding="utf-8") as lock:
        pins = {_normal(name): version for name, version in _PINNED.findall(lock.read())}
    names = {_normal(match[0]): text for text in wanted if (match := _NAME.match(text))}
    return [f"{name}=={pins[name]}" if name in pins else text for name, text in sorted(names.items())]


def constraints() -> list[str]:
    """The locked versions of everything, for what those need in turn."""
    with open(os.path.join(PROJECT, "requirements.lock"), encoding="utf-8") as lock:
        return [f"{name}=={version}" for name, version in _PINNED.findall(lock.read())]


def fingerprint() -> str:
    """Changes when the environment has to be made again."""
    return hashlib.sha256(repr((requirements(), _COMMAND, _INSTALL)).encode()).hexdigest()


def install(root: str, log: IO[bytes]) -> dict[str, str]:
    """Make the environment anew; the versions got. :raise LabError: pip fails."""
    target = root + INSIDE
    shutil.rmtree(target, ignore_errors=True)
    settings = _pip_settings()
    wheels = settings.pop("find-links", "")
    wheels = wheels if os.path.isdir(wheels) else ""
    certificates = settings.get("cert", "")
    settings |= ({"find-links": "/run/wheels"} if wheels else {}) | (
        {"cert": "/etc/ssl/certs/ca-certificates.crt"} if certificates else {}
    )
    # As variables, they reach the pips that pip starts, too.
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("PIP_")}
    environment |= {f"PIP_{name.replace('-', '_').upper()}": value for name, value in settings.items()}
    arguments = ["-q", "--disable-pip-version-check", "--no-cache-dir", "--root-user-action=ignore"]
    listed = os.path.join(root, "opt", "constraints.txt")
    with open(listed, "w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in constraints()))
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSTALL, "sh", root, wheels, certificates]
    try:
        run(
            [*argv, *arguments, "-c", "/opt/constraints.txt", *requirements()],
            timeout=900,
            environment=environment,
            log=log,
        )
    except LabError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        os.unlink(listed)
    _finish(root)
    return {f"python:{name}": version for name, version in _installed(target)}


def _finish(root: str) -> None:
    (packages,) = _site_packages(root + INSIDE)
    with open(os.path.join(packages, "lab.pth"), "w", encoding="utf-8") as file:
        file.write("/unikeel/src\n")
    command = os.path.join(root, "usr/local/bin/unikeel")
    with open(command, "w", encoding="utf-8") as file:
        file.write(_COMMAND)
    os.chmod(command, 0o755)  # noqa: S103 - a command
    run(
        ["chroot", root, f"{INSIDE}/bin/python", "-m", "compileall", "-q", packages.removeprefix(root)],
        timeout=600,
        environment=clean_environment(),
    )


def _site_packages(environment: str) -> list[str]:
    library = os.path.join(environment, "lib")
    return [os.path.join(library, name, "site-packages") for name in os.listdir(library) if name.startswith("python3.")]


def _installed(environment: str) -> list[tuple[str, str]]:
    found = []
    for directory in _site_packages(environment):
        for name in sorted(os.listdir(directory)):
            if name.endswith(".dist-info"):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                found.append((package, version))
    return found


def _pip_settings() -> dict[str, str]:
    """What this host's pip is configured to use: its index, a proxy, certificates. The root gets them for this once."""
    known = (
        "index-url",
        "extra-index-url",
        "find-links",
        "cert",
        "proxy",
        "trusted-host",
        "timeout",
        "default-timeout",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    settings: dict[str, str] = {}
    for line in sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].replace("_", "-")
        if name in known:
            settings["timeout" if name == "default-timeout" else name] = value.strip("'\"")
    return settings


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
