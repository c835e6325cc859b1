"""deploy/: what is made from the program's texts is theirs, and the installer does on a node what it says."""

from __future__ import annotations

import os
import subprocess
import tomllib

import pytest

from unikeel.config import defaults
from unikeel.errors import InvalidArgument
from unikeel.install import deploy, texts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
INSTALLER = os.path.join(ROOT, "deploy/kubernetes/installer/install.sh")


def read(name: str) -> str:
    with open(os.path.join(ROOT, "deploy", name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", sorted(deploy.files()))
def test_the_files_are_the_program_s_own(name: str) -> None:
    assert read(name) == deploy.files()[name], "python -m unikeel.install.deploy deploy"


def test_they_are_written(tmp_path: object) -> None:
    deploy.main(str(tmp_path))
    for name, text in deploy.files().items():
        with open(os.path.join(str(tmp_path), name), encoding="utf-8") as file:
            assert file.read() == text


def test_the_overhead_is_the_monitor_s_allowance() -> None:
    assert f"memory: {defaults().sandbox_monitor_allowance >> 20}Mi\n" in read("kubernetes/runtimeclass.yaml")
    assert "memory: 2Mi\n" in texts.runtime_class("x", (1 << 20) + 1)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_runtime_is_where_containerd_looks(version: int) -> None:
    document = tomllib.loads(texts.drop_in(version, "micro", "erofs"))
    assert document["version"] == version
    table = document
    for name in (*texts.runtime_path(version), "micro"):
        table = table[name]
    assert (table["runtime_type"], table["snapshotter"]) == (texts.RUNTIME, "erofs")
    assert document["plugins"]["io.containerd.cri.v1.images"]["runtime_platforms"]["micro"] == {"snapshotter": "erofs"}


def test_the_service_lets_guests_and_connections_outlive_it() -> None:
    lines = read("systemd/unikeel.service").splitlines()
    for line in (
        "Type=notify",
        "KillMode=process",
        "Delegate=yes",
        "FileDescriptorStoreMax=16384",
        "ExecStart=/usr/local/bin/unikeel daemon",
    ):
        assert line in lines
    assert "ListenStream=/run/unikeel/daemon/launch.sock" in read("systemd/unikeel.socket").splitlines()
    assert "FileDescriptorName=launch" in read("systemd/unikeel.socket").splitlines()


def test_words_of_a_unit() -> None:
    unit = texts.service_unit("/opt/a b/unikeel", ("--root", '/x%$"\\'))
    assert 'ExecStart="/opt/a b/unikeel" daemon --root "/x%%$$\\"\\\\"\n' in unit
    with pytest.raises(InvalidArgument):
        texts.service_unit("/a\nExecStartPre=/evil")


def test_the_launcher_and_the_unit_agree_on_the_socket() -> None:
    with open(os.path.join(ROOT, "src/unikeel/shim/launcher/launcher.c"), encoding="utf-8") as file:
        assert f'#define SOCKET "{texts.LAUNCH_SOCKET}"' in file.read()


@pytest.mark.parametrize("name", ["runtimeclass.yaml", "installer/daemonset.yaml", "example-pod.yaml"])
def test_manifests_have_what_every_manifest_has(name: str) -> None:
    """No parser of YAML is among our dependencies: the shape, at least."""
    text = read(f"kubernetes/{name}")
    assert "\t" not in text
    for key in ("apiVersion: ", "kind: ", "metadata:\n  name: "):
        assert text.count("\n" + key) == 1
    assert all(
        (len(line) - len(line.lstrip())) % 2 == 0 for line in text.splitlines() if not line.lstrip().startswith("#")
    )


class Node:
    """A node's root, and programs that write down how they are called."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.bin = os.path.join(directory, "bin")
        self.log = os.path.join(directory, "log")
        self.host = os.path.join(directory, "host")
        for path in (self.bin, self.host, os.path.join(directory, "payload/wheels")):
            os.makedirs(path)
        with open(os.path.join(directory, "payload/wheels/unikeel-0.1.0.whl"), "w", encoding="utf-8"):
            pass
        self.program("nsenter", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
        self.program("systemctl", f'echo "systemctl $*" >>{self.log}')
        self.program(
            "python3", f'case "$*" in *json*) exec /usr/bin/python3 "$@";; esac; echo "python3 $*" >>{self.log}'
        )
        for name in ("qemu-system-x86_64", "crun"):
            self.program(name, "exit 0")

    def program(self, name: str, text: str, directory: str = "") -> None:
        path = os.path.join(directory or self.bin, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + text + "\n")
        os.chmod(path, 0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOST": self.host,
            "PREFIX": "/opt/unikeel",
            "PAYLOAD": os.path.join(self.directory, "payload"),
            "READY": os.path.join(self.directory, "ready"),
            "KEEP": "no",
            "UNIKEEL_OPTIONS": "--snapshotter devmapper",
        }
        return subprocess.run(
            ["/bin/sh", INSTALLER, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> list[str]:
        with open(self.log, encoding="utf-8") as file:
            return file.read().splitlines()


@pytest.fixture
def node(tmp_path: object) -> Node:
    """Commands "on the node" see its root as ours, so that PREFIX is looked for below it."""
    node = Node(str(tmp_path))
    inside = os.path.join(node.host, "opt/unikeel/bin")
    report = '{"next": ["systemctl daemon-reload", "systemctl restart containerd", "rm -rf /"]}'
    node.program("python", f'echo "pip $*" >>{node.log}', inside)
    node.program("unikeel", f"echo \"unikeel $*\" >>{node.log}; echo '{report}'", inside)
    node.program(
        "nsenter",
        f'while [ "$1" != -- ]; do shift; done; shift; case $1 in /opt/*) p={node.host}$1; shift; exec "$p" "$@";; esac; exec "$@"',
    )
    return node


def test_the_installer_installs_and_restarts_what_has_to_be(node: Node) -> None:
    done = node.run("install")
    assert done.returncode == 0, done
    calls = node.calls()
    assert any("--no-index --find-links /opt/unikeel.wheels --upgrade unikeel" in call for call in calls)
    assert "unikeel install containerd --systemd --yes --json --snapshotter devmapper" in calls
    systemctl = [call for call in calls if call.startswith("systemctl")]
    assert systemctl == [
        "systemctl daemon-reload",
        "systemctl restart containerd",
        "systemctl enable --quiet --now unikeel.socket",
    ]
    assert "not done: rm -rf /" in done.stderr
    assert os.path.exists(os.path.join(node.directory, "ready"))
    assert not os.path.exists(os.path.join(node.host, "opt/unikeel.wheels"))


def test_the_installer_takes_back(node: Node) -> None:
    assert node.run("uninstall").returncode == 0
    assert "unikeel install containerd --uninstall --yes --json" in node.calls()
    assert not os.path.exists(os.path.join(node.host, "opt/unikeel"))
    assert "not installed here" in node.run("uninstall").stderr


def test_the_installer_names_what_the_node_lacks(node: Node) -> None:
    os.unlink(os.path.join(node.bin, "crun"))
    node.program("python3", "exit 1")
    node.program("sh", 'case "$*" in *runc*) exit 1;; esac; exec /bin/sh "$@"')
    done = node.run("install")
    assert done.returncode == 1
    assert "neither crun nor runc" in done.stderr
    assert "Python 3.11 or newer" in done.stderr
    assert not os.path.exists(os.path.join(node.directory, "ready"))
    assert node.run("nonsense").returncode == 2
