"""What each sample image holds: from sources and packages to a directory that ``unikeel image build`` packs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from samples import ballast, compiling, initramfs, kmod
from samples.debian import Package, Packages, members
from samples.trees import Tree

#: Debian's kernel for virtual machines, and the server; what else of the packages they depend on is taken.
_KERNEL: Final = "linux-image-cloud-amd64"
_NGINX: Final = "nginx"
_LIBRARIES: Final = ("lib", "zlib")

#: virtio over PCI (q35) and over MMIO (microvm), the disk and its file system, the network card, the power button. ext4 asks the kernel
#: for a checksum by name, which no dependency says.
_DRIVERS: Final = (
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "crc32c_generic", "ext4", "evdev", "button",
)  # fmt: skip
#: Kernels after 6.14 have it built into their library under another name.
_OPTIONAL: Final = ("crc32c_generic",)

#: The page that the server of the sample ``nginx`` serves.
PAGE: Final = "<!doctype html>\n<title>unikeel</title>\n<h1>nginx in a unikernel container says hello</h1>\n"

_NGINX_CONF: Final = """\
# Everything that is written goes to memory (/run) or the console.
user www-data;
daemon off;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    default_type text/html;
    client_body_temp_path /run/body;
    proxy_temp_path /run/proxy;
    fastcgi_temp_path /run/fastcgi;
    uwsgi_temp_path /run/uwsgi;
    scgi_temp_path /run/scgi;
    server {
        listen 80;
        root /var/www/html;
    }
}
"""
_USERS: Final = "root:x:0:0:root:/:/usr/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
_GROUPS: Final = "root:x:0:\nwww-data:x:33:\n"

_HELLO_TOML: Final = """\
name = "{name}"
type = "generic"
monitor = "qemu"
kernel = "/boot/hello"
mount_rootfs = true
cmd = ["exit=0"]
"""
_BULKY_TOML: Final = """\
name = "bulky"
type = "generic"
monitor = "qemu"
kernel = "/boot/hello"
initrd = "/boot/initrd"
cmd = ["exit=0"]
[annotations]
"org.unikeel.rootfs" = "block"
"""
_NGINX_TOML: Final = """\
name = "nginx"
type = "linux"
monitor = "qemu"
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd"
entrypoint = ["/sbin/guest-init"]
cmd = ["/usr/sbin/nginx"]
[annotations]
"org.unikeel.rootfs" = "block"
"org.unikeel.powerdown" = "true"
"""
_INITRD_TOML: Final = """\
name = "initrd"
type = "linux"
monitor = "qemu"
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd"
entrypoint = ["/init"]
[annotations]
"org.unikeel.powerdown" = "false"
"""


class Kernel(NamedTuple):
    """What of a kernel package is used."""

    image: bytes
    modules: dict[str, bytes]
    built_in: tuple[str, ...]


class Workshop:
    """What the samples are made of; each thing is made once and only when a sample asks for it."""

    def __init__(self, packages: Callable[[], Packages], scratch: str) -> None:
        """:param scratch: a directory for compiled programs."""
        self._packages = packages
        self._scratch = scratch
        self._kernel: Kernel | None = None

    def kernel(self) -> Kernel:
        """Debian's kernel. :raise debian.PackageError: it cannot be had."""
        if self._kernel is None:
            packages = self._packages()
            paths = [packages.path(package) for package in kernel_packages(packages)]
            self._kernel = read_kernel(paths)
        return self._kernel

    def nginx(self) -> list[str]:
        """The packages of nginx and its libraries, as paths of the host."""
        packages = self._packages()
        return [packages.path(package) for package in nginx_packages(packages)]

    def program(self, *sources: str) -> str:
        """A static Linux program of these sources."""
        output = os.path.join(self._scratch, sources[0].replace("/", "-").removesuffix(".c"))
        if not os.path.exists(output):
            compiling.program(sources, output)
        return output

    def hello(self) -> str:
        """The unikernel."""
        output = os.path.join(self._scratch, "hello")
        if not os.path.exists(output):
            compiling.unikernel("hello", output)
        return output


def kernel_packages(packages: Packages) -> list[Package]:
    """The kernel's packages: a name that stays, and the one that it stands for now."""
    return packages.group(_KERNEL, lambda name: name.startswith("linux-image-"))


def nginx_packages(packages: Packages) -> list[Package]:
    """The server's package and the libraries that it needs."""
    return packages.group(_NGINX, lambda name: name.startswith(_LIBRARIES))


def read_kernel(packages: list[str]) -> Kernel:
    """A kernel, its modules and the names of those that are built in, from its packages (paths of the host)."""
    image = b""
    modules: dict[str, bytes] = {}
    built_in: tuple[str, ...] = ()
    for package in packages:
        for path, member in members(package, _is_of_kernel):
            if path.startswith("boot/"):
                image = member.data
            elif path.endswith("/modules.builtin"):
                built_in = tuple(kmod.name_of(line) for line in member.data.decode().splitlines())
            else:
                modules[kmod.name_of(path)] = member.data
    return Kernel(image, modules, built_in)


def _is_of_kernel(path: str) -> bool:
    return path.startswith("boot/vmlinuz-") or path.endswith((".ko", ".ko.xz", "/modules.builtin"))


def loader_initrd(kernel: Kernel, loader: bytes) -> bytes:
    """An initrd that loads drivers, mounts the disk and goes on with the disk's init (guest-init/loader.c)."""
    wanted = [name for name in _DRIVERS if name in kernel.modules or name not in _OPTIONAL]
    order = kmod.load_order(wanted, kernel.modules, kernel.built_in)
    files = {f"/modules/{name}": initramfs.File(kmod.unpacked(kernel.modules[name])) for name in order}
    files["/modules/list"] = initramfs.File("".join(f"{name}\n" for name in order).encode())
    files["/init"] = initramfs.File(loader, 0o755)
    return initramfs.archive(files)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _toml(context: str, text: str) -> None:
    with open(os.path.join(context, "image.toml"), "w", encoding="utf-8") as file:
        file.write(text)


def _hello_tree(workshop: Workshop, root: str) -> Tree:
    tree = Tree(root)
    tree.copy("/boot/hello", workshop.hello(), 0o755)
    tree.write("/etc/motd", "The disk of a unikernel: it needs none of this, but it can read it.\n")
    return tree


def hello(workshop: Workshop, context: str) -> None:
    """The smallest: one program, which is kernel and all."""
    _hello_tree(workshop, f"{context}/tree")
    _toml(context, _HELLO_TOML.format(name="hello"))


def with_ballast(workshop: Workshop, context: str) -> None:
    """The same with 1 GiB of files that nobody reads: does a start's time follow the image's size?"""
    tree = _hello_tree(workshop, f"{context}/tree")
    for number in range(16):
        ballast.write(tree.host(f"/ballast/{number:02}"), f"ballast {number}", 64)
    _toml(context, _HELLO_TOML.format(name="ballast"))


def bulky(workshop: Workshop, context: str) -> None:
    """The same with 32 MiB of boot files: an initrd that the guest ignores. What is handed over is what costs here."""
    tree = _hello_tree(workshop, f"{context}/tree")
    ballast.write(tree.host("/boot/initrd"), "bulky", 32)
    _toml(context, _BULKY_TOML)


def layers(workshop: Workshop, context: str) -> None:
    """Five layers, the boot files in the first; the others add, replace, hide and link."""
    first = _hello_tree(workshop, f"{context}/1")
    first.write("/data/replaced", "by the third layer\n")
    first.write("/data/removed", "by the third layer\n")
    first.write("/old/hidden", "by the fourth layer\n")
    second = Tree(f"{context}/2")
    second.write("/data/second", "second\n", 0o600)
    second.link("/data/also-second", "/data/second")
    third = Tree(f"{context}/3")
    third.write("/data/replaced", "third\n")
    third.write("/data/.wh.removed", "")
    fourth = Tree(f"{context}/4")
    fourth.write("/old/.wh..wh..opq", "")
    fourth.write("/old/new", "fourth\n")
    fifth = Tree(f"{context}/5")
    fifth.symlink("/data/link", "../boot/hello")
    ballast.write(fifth.host("/data/fifth"), "layers", 4)
    listed = "".join(f'[[layers]]\ntree = "{number}"\n' for number in range(1, 6))
    _toml(context, _HELLO_TOML.format(name="layers") + listed)


def initrd(workshop: Workshop, context: str) -> None:
    """A kernel and one initrd, no disk."""
    init = workshop.program("initrd/init.c", "guest-init/guest.c")
    tree = Tree(f"{context}/tree")
    tree.write("/boot/vmlinuz", workshop.kernel().image)
    tree.write("/boot/initrd", initramfs.archive({"/init": initramfs.File(_read(init), 0o755)}))
    _toml(context, _INITRD_TOML)


def nginx(workshop: Workshop, context: str) -> None:
    """A server as images of the field have it: kernel, small initrd, and a root file system that the guest mounts as its disk."""
    kernel = workshop.kernel()
    loader = workshop.program("guest-init/loader.c", "guest-init/guest.c")
    init = workshop.program("guest-init/guest-init.c", "guest-init/guest.c", "guest-init/network.c")
    tree = Tree(f"{context}/tree")
    for name in ("bin", "lib", "lib64", "sbin"):
        tree.directory(f"/usr/{name}")
        tree.symlink(f"/{name}", f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "var/www"):
        tree.directory(f"/{name}")
    tree.directory("/tmp", 0o1777)  # noqa: S108 - the guest's
    for package in workshop.nginx():
        for path, member in members(package, _is_of_nginx):
            if member.target:
                tree.symlink(f"/{path}", member.target)
            else:
                tree.write(f"/{path}", member.data, 0o755)
    tree.directory("/var/log/nginx")  # a path compiled into nginx, opened before it reads its configuration
    tree.write("/etc/nginx/nginx.conf", _NGINX_CONF)
    tree.write("/etc/passwd", _USERS)
    tree.write("/etc/group", _GROUPS)
    tree.write("/var/www/html/index.html", PAGE)
    tree.copy("/usr/sbin/guest-init", init, 0o755)
    tree.write("/boot/vmlinuz", kernel.image)
    tree.write("/boot/initrd", loader_initrd(kernel, _read(loader)))
    _toml(context, _NGINX_TOML)


def _is_of_nginx(path: str) -> bool:
    """The program, the libraries in the multiarch directory itself, and the dynamic loader."""
    directory, _, name = path.rpartition("/")
    if directory in ("usr/lib/x86_64-linux-gnu", "usr/lib64"):
        return ".so" in name
    return path == "usr/sbin/nginx"


class Sample(NamedTuple):
    """One image: how its context is made, and what it is made of (for telling whether it is up to date)."""

    make: Callable[[Workshop, str], None]
    sources: tuple[str, ...]
    packages: tuple[Callable[[Packages], list[Package]], ...] = ()


SAMPLES: Final[dict[str, Sample]] = {
    "hello": Sample(hello, ("hello",)),
    "nginx": Sample(nginx, ("guest-init",), (kernel_packages, nginx_packages)),
    "initrd": Sample(initrd, ("initrd", "guest-init"), (kernel_packages,)),
    "layers": Sample(layers, ("hello",)),
    "bulky": Sample(bulky, ("hello",)),
    "ballast": Sample(with_ballast, ("hello",)),
}
