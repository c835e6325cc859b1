"""Monitors beside QEMU, with real sandboxes: user-mode Linux from the distribution's package, Solo5's tenders where ``UNIKEEL_SOLO5`` names its built source tree, Unikraft
where ``UNIKEEL_UNIKRAFT`` names a kernel of its."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

import installed_kernel
import unikeel
from engine_leftovers import host_leftovers, records, wait_keeper_gone
from engine_stages import LONG, PATIENCE, Stage, sample
from network_world import ping6
from ordinary_images import docker_archive
from samples import compiling
from unikeel.errors import InvalidArgument, Unimplemented

_STATE = unikeel.ContainerState
#: A tree of Solo5's sources in which everything is built; its unikernels are in no package.
SOLO5 = os.environ.get("UNIKEEL_SOLO5", "")
#: A kernel of Unikraft's that prints its arguments and ends (app-helloworld).
UNIKRAFT = os.environ.get("UNIKEEL_UNIKRAFT", "")
_PATHS = f'[monitor]\nspt_path = "{SOLO5}/tenders/spt/solo5-spt"\n' if SOLO5 else ""

#: What the ordinary image's program does: says what it is given, and what its words ask for.
_TELLER = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static void ended(int signal)
{
    (void)signal;
    static const char words[] = "asked to end\n";
    if (write(1, words, sizeof words - 1) > 0)
        _exit(3);
}

static void network(void)
{
    char line[256];
    struct ifaddrs *all;
    FILE *file = fopen("/etc/resolv.conf", "r");
    if (getifaddrs(&all))
        return;
    for (struct ifaddrs *one = all; one; one = one->ifa_next)
        if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET)
            printf("address %s\n", inet_ntoa(((struct sockaddr_in *)one->ifa_addr)->sin_addr));
    while (file && fgets(line, sizeof line, file))
        fputs(line, stdout);
}

int main(int argc, char **argv)
{
    char text[256];
    int status = 0;
    printf("process %d of %d\n", getpid() > 1 ? 2 : 1, getppid());
    printf("user %d group %d\n", getuid(), getgid());
    printf("directory %s\n", getcwd(text, sizeof text));
    gethostname(text, sizeof text);
    printf("host %s\n", text);
    for (char **variable = environ; *variable; variable++)
        printf("variable %s\n", *variable);
    for (int i = 1; i < argc; i++) {
        printf("argument %s\n", argv[i]);
        if (!strncmp(argv[i], "exit=", 5))
            status = atoi(argv[i] + 5);
        if (!strcmp(argv[i], "network"))
            network();
        if (!strcmp(argv[i], "wait")) {
            signal(SIGTERM, ended);
            puts("waiting");
            fflush(stdout);
            for (;;)
                pause();
        }
    }
    fflush(stdout);
    return status;
}
"""

_TOML = """\
name = "{name}"
type = "{guest}"
monitor = "{monitor}"
kernel = "{kernel}"
{more}
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    directory = str(tmp_path_factory.mktemp("monitors"))
    made = Stage(directory, config=_PATHS)
    init = os.path.join(directory, "init")
    compiling.program(("initrd/init.c", "guest-init/guest.c"), init)
    with made.engine() as engine:
        engine.load(sample("initrd"), name="initrd")
        build(engine, directory, "block", "linux", "uml", {"init": init, "vmlinuz": "/dev/null"}, "/vmlinuz", _DISK)
    return made


_DISK = 'mount_rootfs = true\nentrypoint = ["/init"]'


def build(
    engine: unikeel.Engine,
    directory: str,
    name: str,
    guest: str,
    monitor: str,
    files: dict[str, str],
    kernel: str,
    more: str = "",
) -> None:
    """An image whose root has these files (name → host path)."""
    context = os.path.join(directory, f"context-{name}")
    for place in ("dev", "proc", "sys"):
        os.makedirs(os.path.join(context, "tree", place))
    for file, path in files.items():
        target = os.path.join(context, "tree", file)
        shutil.copyfile(path, target)
        os.chmod(target, 0o755)
    with open(os.path.join(context, "image.toml"), "w", encoding="utf-8") as text:
        text.write(_TOML.format(name=name, guest=guest, monitor=monitor, kernel=kernel, more=more))
    engine.build(context)


@pytest.fixture
def engine(stage: Stage) -> Iterator[unikeel.Engine]:
    """An engine; afterwards nothing may be left but images and boot files."""
    stage.notices.clear()
    with stage.engine() as engine:
        yield engine
        idents = []
        for container in engine.containers(everything=True):
            idents.append(container.id)
            container.remove(force=True)
    wait_keeper_gone(stage.root)
    left = os.listdir(os.path.join(stage.root, "containers"))
    assert [*left, *records(stage.root), *host_leftovers(stage.root, idents)] == []


def output(container: unikeel.Container) -> str:
    return b"".join(container.logs()).decode()


def test_user_mode_linux_boots_an_initrd_confined_and_tells_its_exit(engine: unikeel.Engine) -> None:
    """The image is one for QEMU: its kernel is not even read."""
    options = unikeel.Options(monitor="uml", args=("two words",), env=("A=1",), memory=64 << 20)
    container = engine.create("initrd", options)
    for _ in range(2):
        container.start(ready="console:hello from an initrd", seconds=PATIENCE)
        assert container.wait(PATIENCE) == 0
        assert {"argument: two words", "environment: A=1"} < set(output(container).splitlines())
    found = container.inspect()
    assert found["rootfs"] == {"kind": "initrd", "reason": "the image names the initrd /boot/initrd"}
    assert found["strategy"] == "cache"
    assert found["disk"] is None


def test_user_mode_linux_with_the_snapshot_as_its_disk(engine: unikeel.Engine) -> None:
    container = engine.create("block", unikeel.Options(args=("from a disk",), memory=64 << 20))
    container.start(ready="console:argument: from a disk", seconds=PATIENCE)
    assert container.wait(PATIENCE) == 0
    found = container.inspect()
    assert found["rootfs"] == {"kind": "snapshot", "reason": "mountRootfs, and linux can use ext4"}
    assert found["strategy"] == "none"


def waiting(engine: unikeel.Engine, powerdown: str) -> unikeel.Container:
    """A guest that waits for ever."""
    annotations = (("org.unikeel.powerdown", powerdown),)
    options = unikeel.Options(monitor="uml", args=("wait",), memory=64 << 20, annotations=annotations)
    container = engine.create("initrd", options)
    container.start(ready="console:argument: wait", seconds=PATIENCE)
    return container


def test_it_runs_as_nobody_in_namespaces_of_its_own_and_only_its_own_tmp_can_be_written(engine: unikeel.Engine) -> None:
    container = waiting(engine, "false")
    pid = container.record.pid
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    uid = str(container.inspect()["uid"])
    assert status["Uid"].split() == [uid] * 4
    assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"]) == (
        "0" * 16,
        "0" * 16,
        "1",
        "2",
    )
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        writable = {line.split()[4] for line in file if "rw" in line.split()[5].split(",")}
    assert writable - {"/proc"} == {"/tmp"}
    container.kill(signal.SIGKILL)
    assert container.wait(PATIENCE) == 137


def test_a_disk_that_lies_in_the_image_is_the_root_and_keeps_what_is_written(
    engine: unikeel.Engine, stage: Stage
) -> None:
    """The snapshot has nothing but that disk, whose init is the one of the other images."""
    tree, disk = os.path.join(stage.directory, "disk-tree"), os.path.join(stage.directory, "disk.img")
    for name in ("dev", "proc", "sys"):
        os.makedirs(os.path.join(tree, name))
    shutil.copy(os.path.join(stage.directory, "init"), tree)
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-d", tree, disk], check=True, timeout=PATIENCE)
    more = 'block = "/disk.img"\nblock_mount = "/"\nentrypoint = ["/init"]'
    files = {"disk.img": disk, "vmlinuz": "/dev/null"}
    build(engine, stage.directory, "inside", "linux", "uml", files, "/vmlinuz", more)
    container = engine.create("inside", unikeel.Options(args=("from inside",), memory=64 << 20))
    for count in range(2 if LONG else 1):
        container.start(seconds=PATIENCE)
        assert container.wait(PATIENCE) == 0
        assert output(container).count("argument: from inside") == count + 1
    found = container.inspect()
    assert found["rootfs"] == {"kind": "image-disk", "reason": "the image's own disk /disk.img is to be /"}
    with (
        open(os.path.join(stage.root, "containers", container.id, "image-disk.raw"), "rb") as own,
        open(disk, "rb") as given,
    ):
        assert own.read() != given.read()


def test_the_power_button_of_user_mode_linux_ends_it(engine: unikeel.Engine) -> None:
    container = waiting(engine, "true")
    assert container.stop(PATIENCE) == 0
    assert container.record.reason == ""


def test_without_a_power_button_it_is_killed(engine: unikeel.Engine) -> None:
    container = waiting(engine, "false")
    assert container.stop(PATIENCE) == 137


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ordinary image in a Docker archive: one static program, which tells what it is given."""
    directory = tmp_path_factory.mktemp("ordinary")
    source, teller = directory / "teller.c", str(directory / "teller")
    source.write_text(_TELLER)
    subprocess.run(["gcc", "-static", "-O1", "-o", teller, str(source)], check=True, timeout=300)
    return docker_archive(str(directory / "ordinary.tar"), teller)


def test_an_ordinary_image_runs_with_our_own_init(engine: unikeel.Engine, ordinary: str) -> None:
    options = unikeel.Options(
        guest="linux",
        kernel="default",
        monitor="uml",
        memory=64 << 20,
        args=("two words", "exit=7"),
        env=('Q="quoted"',),
    )
    container = engine.create(f"docker-archive:{ordinary}", options)
    container.start(seconds=PATIENCE)
    assert container.wait(PATIENCE) == 7
    told = output(container).replace("\r", "").splitlines()
    assert {
        "process 2 of 1",
        "user 1000 group 77",
        "directory /work/sub",
        f"host {container.name}",
        "argument two words",
        'variable Q="quoted"',
        "variable A=1",
    } <= set(told)
    assert container.inspect()["rootfs"] == {"kind": "snapshot", "reason": "mountRootfs, and linux can use ext4"}


def test_its_program_is_asked_to_end_and_then_the_guest_powers_off(engine: unikeel.Engine, ordinary: str) -> None:
    options = unikeel.Options(guest="linux", kernel="default", monitor="uml", memory=64 << 20, args=("wait",))
    container = engine.create(f"docker-archive:{ordinary}", options)
    container.start(ready="console:waiting", seconds=PATIENCE)
    assert container.stop(PATIENCE) == 0
    assert "asked to end" in output(container)


def own_kernel(stage: Stage) -> str:
    """A configuration that names an installed kernel."""
    with open(stage.config, encoding="utf-8") as file:
        text = file.read()
    config = os.path.join(stage.directory, "kernel.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(text + installed_kernel.configuration())
    return config


def test_the_distributions_kernel_boots_it_on_qemu(stage: Stage, ordinary: str) -> None:
    """Its drivers come from the package, in the order of modules.dep; the network is up when the program begins."""
    with unikeel.Engine(stage.root, config=own_kernel(stage)) as engine:
        options = unikeel.Options(guest="linux", kernel="default", network="user", args=("network", "exit=7"))
        container = engine.create(f"docker-archive:{ordinary}", options)
        try:
            container.start(seconds=PATIENCE)
            assert container.wait(PATIENCE) == 7
            told = output(container).replace("\r", "").splitlines()
            assert {"user 1000 group 77", "address 10.0.2.15", "nameserver 10.0.2.3"} <= set(told)
        finally:
            container.remove(force=True)


@pytest.mark.long
def test_its_addresses_are_those_of_a_network_of_cni(stage: Stage, ordinary: str) -> None:
    """Of IPv4 and of IPv6; our init is told both."""
    network = os.path.join(stage.directory, "net.conflist")
    ranges = [[{"subnet": "10.254.79.0/28"}], [{"subnet": "fd79::/64"}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "host-local", "dataDir": f"{stage.directory}/leases", "ranges": ranges, "routes": routes}
    plugin = {"type": "ptp", "ipam": ipam, "dns": {"nameservers": ["10.254.79.1"]}}
    with open(network, "w", encoding="utf-8") as file:
        json.dump({"cniVersion": "1.0.0", "name": "both", "plugins": [plugin]}, file)
    with unikeel.Engine(stage.root, config=own_kernel(stage)) as engine:
        options = unikeel.Options(guest="linux", kernel="default", network=network, args=("network", "wait"))
        container = engine.create(f"docker-archive:{ordinary}", options)
        try:
            container.start(ready="console:waiting", seconds=PATIENCE)
            shown = engine.container(container.id).inspect()["monitor"]["network"]  # type: ignore[index]  # JSON
            assert f"address {shown['address']}" in output(container)
            assert ping6(shown["address6"])
        finally:
            container.remove(force=True)


def test_what_user_mode_linux_cannot_do_is_said_before_anything_is_made(engine: unikeel.Engine) -> None:
    with pytest.raises(InvalidArgument, match="the monitor uml has no user-mode networking"):
        engine.create("initrd", unikeel.Options(monitor="uml", network="user"))
    container = engine.create("initrd", unikeel.Options(monitor="uml", cpus=2))
    with pytest.raises(InvalidArgument, match="a guest of uml can have 1 processor, not 2"):
        container.start()
    assert container.state is _STATE.CREATED
    with pytest.raises(Unimplemented, match="'hyperlight-unikraft' is known but not offered"):
        engine.create(
            "initrd",
            unikeel.Options(
                annotations=(
                    ("com.urunc.unikernel.unikernelType", "unikraft"),
                    ("com.urunc.unikernel.hypervisor", "hyperlight-unikraft"),
                )
            ),
        )


if UNIKRAFT:

    def test_unikraft_says_what_it_was_told(engine: unikeel.Engine, stage: Stage) -> None:
        build(engine, stage.directory, "unikraft", "unikraft", "qemu", {"kernel": UNIKRAFT}, "/kernel")
        options = unikeel.Options(network="none", memory=64 << 20, args=("some", "words"))
        container = engine.create("unikraft", options)
        container.start(seconds=PATIENCE)
        assert container.wait(PATIENCE) == 0
        assert '"some" "words"' in output(container)


if SOLO5:

    def run(engine: unikeel.Engine, stage: Stage, monitor: str, test: str, more: str = "") -> tuple[int, str]:
        """A unikernel of Solo5's own tests; its exit code and what it printed."""
        suffix = "virtio" if monitor == "qemu" else monitor
        name = f"{test.replace('_', '-')}-{suffix}"
        file = f"{test}.{suffix}"
        build(
            engine, stage.directory, name, "mirage", monitor, {file: f"{SOLO5}/tests/{test}/{file}"}, f"/{file}", more
        )
        container = engine.create(name, unikeel.Options(network="none", memory=64 << 20))
        container.start(seconds=PATIENCE)
        return container.wait(PATIENCE), output(container)

    @pytest.mark.parametrize("monitor", ["spt", "qemu"])
    def test_a_unikernel_of_solo5_says_what_it_was_told(engine: unikeel.Engine, stage: Stage, monitor: str) -> None:
        code, printed = run(engine, stage, monitor, "test_hello", 'entrypoint = ["Hello_Solo5"]')
        assert (code, "SUCCESS" in printed, "Command line is: 'Hello_Solo5'" in printed) == (0, True, True)

    def test_a_unikernel_of_solo5_reads_and_writes_its_snapshot(engine: unikeel.Engine, stage: Stage) -> None:
        code, printed = run(engine, stage, "spt", "test_blk", "mount_rootfs = true")
        assert (code, "SUCCESS" in printed) == (0, True)

    def test_the_tenders_own_filter_is_inside_of_ours(engine: unikeel.Engine, stage: Stage) -> None:
        """It makes a system call that it may not: SIGSYS, not an error that it could ignore."""
        code, printed = run(engine, stage, "spt", "test_seccomp")
        assert (code, "SUCCESS" in printed) == (128 + signal.SIGSYS, False)
