"""The samples' kernel laid out as its package would install it, with the list of dependencies that depmod(8) would make."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile

from samples import images, kmod
from samples.debian import Packages, cache_directory
from unikeel.engine.default_kernel import CONSOLE_DRIVERS, DRIVERS, SHARE_DRIVERS

VERSION = "6.1.0-test-amd64"


@functools.cache
def configuration() -> str:
    """Lines of a configuration file that name it, installed once for all tests of this process."""
    root = tempfile.mkdtemp(prefix="uk-kernel-")
    atexit.register(shutil.rmtree, root)
    install(root)
    return f'[kernel]\nimage = "{root}/boot/vmlinuz-{VERSION}"\nmodules = "{root}/lib/modules/{VERSION}"\n'


def install(root: str) -> None:
    """Below ``root``: ``boot/vmlinuz-VERSION``, ``lib/modules/VERSION``."""
    packages = Packages(cache_directory(os.environ))
    kernel = images.read_kernel([packages.path(package) for package in images.kernel_packages(packages)])
    modules = os.path.join(root, "lib/modules", VERSION)
    os.makedirs(os.path.join(modules, "kernel"))
    os.makedirs(os.path.join(root, "boot"))
    with open(os.path.join(root, "boot", f"vmlinuz-{VERSION}"), "wb") as file:
        file.write(kernel.image)
    lines: dict[str, str] = {}
    for driver in (*DRIVERS, *SHARE_DRIVERS["virtiofs"], *CONSOLE_DRIVERS):
        if driver in kernel.built_in or driver not in kernel.modules:
            continue
        *needed, own = kmod.load_order([driver], kernel.modules, kernel.built_in)
        paths = [f"kernel/{name}.ko" for name in (own, *reversed(needed))]
        lines[driver] = f"{paths[0]}: {' '.join(paths[1:])}\n"
        for name in (own, *needed):
            with open(os.path.join(modules, f"kernel/{name}.ko"), "wb") as file:
                file.write(kmod.unpacked(kernel.modules[name]))
    with open(os.path.join(modules, "modules.dep"), "w", encoding="utf-8") as text:
        text.writelines(lines.values())
    with open(os.path.join(modules, "modules.builtin"), "w", encoding="utf-8") as text:
        text.writelines(f"kernel/{name}.ko\n" for name in kernel.built_in)
