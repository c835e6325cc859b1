"""`unikeel install containerd`: what it writes for which containerd, and that it takes back exactly that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.install import changes, executing, planning, record, situation, texts
from unikeel.install.planning import Plan, Wishes

LAUNCHER = b"\x7fELF\0program"
V3 = "# containerd's own\nversion = 3\n\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dir = '/opt/cni/bin' # keep\n"
V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/usr/lib/cni" # keep\n'


class Host:
    """A host's files below a temporary directory."""

    def __init__(self, directory: str, config: str | None, containerd: tuple[int, int] | None) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "state")
        self.config = os.path.join(directory, "etc/containerd/config.toml")
        self.containerd = containerd
        os.makedirs(os.path.dirname(self.config))
        if config is not None:
            self.write(self.config, config)
            os.chmod(self.config, 0o640)
        self.original = self.files()

    def write(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file, its mode and content; directories, too."""
        found: dict[str, tuple[int, bytes]] = {}
        for parent, directories, names in os.walk(self.directory):
            for name in (*directories, *names):
                path = os.path.join(parent, name)
                mode = os.lstat(path).st_mode
                found[path] = (
                    mode,
                    changes.current(path) or b"" if name in names and not os.path.islink(path) else b"",
                )
        found.pop(self.root, None)
        return found

    def wishes(self, **other: Any) -> Wishes:
        given: dict[str, Any] = {
            "launcher": LAUNCHER,
            "command": "/opt/unikeel/bin/unikeel",
            "bin_dir": os.path.join(self.directory, "bin"),
            "unit_dir": os.path.join(self.directory, "units"),
            "link_command": True,
        }
        return Wishes(**{**given, **other})

    def plan(self, **other: Any) -> Plan:
        found = situation.examine(self.config, self.containerd)
        return planning.install(self.wishes(**other), found, record.read(self.root))

    def install(self, **other: Any) -> Plan:
        plan = self.plan(**other)
        executing.carry_out(plan, self.root)
        return plan

    def uninstall(self) -> Plan:
        plan = planning.uninstall(record.read(self.root))
        executing.take_back(plan, self.root, planning.dangling(os.path.join(self.directory, "units"), plan.changes))
        return plan

    def runtimes(self) -> dict[str, Any]:
        """The runtimes of the main file and all that it imports, as containerd 2.x would merge them."""
        document = tomllib.loads(self.read(self.config))
        found: dict[str, Any] = {}
        for path in (self.config, *situation.resolved(document.get("imports", []), self.config)):
            parsed = tomllib.loads(self.read(path))
            for name, plugin in parsed.get("plugins", {}).items():
                if "cri" in name:
                    found.update(plugin.get("containerd", {}).get("runtimes", {}))
        return found


def host_of(directory: object, config: str | None, containerd: tuple[int, int] | None) -> Host:
    return Host(str(directory), config, containerd)


CASES = [
    pytest.param(V3, (2, 1), id="2.1"),
    pytest.param(V3.replace("version = 3", "version = 4"), (2, 3), id="2.3"),
    pytest.param(V3, None, id="3-unknown"),
    pytest.param(V2, (1, 7), id="1.7"),
    pytest.param(V2, (2, 1), id="2-under-2.1"),
    pytest.param(V2, None, id="2-unknown"),
    pytest.param(None, (1, 7), id="none-1.7"),
    pytest.param(None, (2, 1), id="none-2.1"),
    pytest.param(None, (2, 3), id="none-2.3"),
    pytest.param("", (2, 1), id="empty"),
    pytest.param("# a comment\nroot = '/x'\n", (1, 6), id="no-version-1.6"),
    pytest.param("# a comment\nroot = '/x'", (2, 2), id="no-version-2.2"),
    pytest.param(
        V3.replace("\n\n", "\nimports = ['/etc/none/*.toml', 'conf.d/*.toml']\n\n"), (2, 2), id="imported-already"
    ),
]


@pytest.mark.parametrize(("config", "containerd"), CASES)
def test_install_twice_and_uninstall(tmp_path: object, config: str | None, containerd: tuple[int, int] | None) -> None:
    host = host_of(tmp_path, config, containerd)
    plan = host.install(snapshotter="devmapper")
    assert {os.path.basename(change.path) for change in plan.changes} >= {
        "containerd-shim-unikeel-v2",
        "unikeel.socket",
        "unikeel",
    }
    runtime = host.runtimes()["unikeel"]
    assert runtime["runtime_type"] == "io.containerd.unikeel.v2"
    assert runtime["pod_annotations"] == runtime["container_annotations"] == ["com.urunc.*", "org.unikeel.*"]
    assert runtime["snapshotter"] == "devmapper"
    for line in (config or "").splitlines():
        assert line in host.read(host.config).splitlines()
    if config is not None:
        assert os.stat(host.config).st_mode & 0o777 == 0o640
    assert os.stat(os.path.join(host.directory, "bin/containerd-shim-unikeel-v2")).st_mode & 0o777 == 0o755
    assert os.readlink(os.path.join(host.directory, "bin/unikeel")) == "/opt/unikeel/bin/unikeel"
    assert host.plan(snapshotter="devmapper").changes == ()
    host.install(snapshotter="devmapper")
    plan = host.uninstall()
    assert plan.left == ()
    if config is None or config.endswith("\n") or not config:
        assert host.files() == host.original
    assert record.read(host.root) == ()
    assert host.uninstall().changes == ()


@pytest.mark.parametrize(("config", "containerd"), CASES)
def test_our_own_snapshotter(tmp_path: object, config: str | None, containerd: tuple[int, int] | None) -> None:
    host = host_of(tmp_path, config, containerd)
    host.install(snapshotter="unikeel", snapshots="/run/x/containerd.sock")
    assert host.runtimes()["unikeel"]["snapshotter"] == "unikeel"
    document = tomllib.loads(host.read(host.config))
    written = [
        document,
        *(tomllib.loads(host.read(path)) for path in situation.resolved(document.get("imports", []), host.config)),
    ]
    ours = next(table for table in written if "proxy_plugins" in table)
    assert ours["proxy_plugins"] == {"unikeel": {"type": "snapshot", "address": "/run/x/containerd.sock"}}
    second = (containerd or (2 if "unikeel" in str(document.get("imports")) else 1, 0))[0] >= 2
    unpack = ours["plugins"].get("io.containerd.transfer.v1.local", {}).get("unpack_config", [])
    assert [entry["snapshotter"] for entry in unpack] == (["overlayfs", "unikeel"] if second else [])
    unit = host.read(os.path.join(host.directory, "units/unikeel-snapshots.socket")).splitlines()
    assert {"ListenStream=/run/x/containerd.sock", "FileDescriptorName=snapshots"} <= set(unit)
    service = host.read(os.path.join(host.directory, "units/unikeel.service")).splitlines()
    assert "Requires=unikeel.socket unikeel-snapshots.socket" in service
    assert host.plan(snapshotter="unikeel", snapshots="/run/x/containerd.sock").changes == ()
    assert host.uninstall().left == ()
    if config is None or config.endswith("\n") or not config:
        assert host.files() == host.original


def test_our_own_snapshotter_beside_what_is_there(tmp_path: object) -> None:
    """A plugin of its name is somebody else's; what is said of unpacking stays."""
    proxy = "[proxy_plugins.unikeel]\ntype = 'snapshot'\naddress = '/x'\n"
    host = host_of(os.path.join(str(tmp_path), "1"), V3 + proxy, (2, 1))
    with pytest.raises(FailedPrecondition, match="a plugin unikeel already"):
        host.plan(snapshotter="unikeel")
    transfer = "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nsnapshotter = 'native'\n"
    host = host_of(os.path.join(str(tmp_path), "2"), V3 + transfer, (2, 1))
    host.install(snapshotter="unikeel")
    drop_in = tomllib.loads(host.read(os.path.join(os.path.dirname(host.config), "conf.d/unikeel.toml")))
    assert list(drop_in["plugins"]) == ["io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]
    assert "unikeel" in drop_in["proxy_plugins"]


@pytest.mark.parametrize(("config", "containerd"), CASES)
def test_another_handler_takes_the_place_of_the_first(
    tmp_path: object, config: str | None, containerd: tuple[int, int] | None
) -> None:
    host = host_of(tmp_path, config, containerd)
    host.install()
    host.install(handler="micro", launcher=b"newer")
    assert list(host.runtimes()) == ["micro"]
    host.uninstall()
    if config is None or config.endswith("\n") or not config:
        assert host.files() == host.original


def test_a_version_of_containerd_decides_what_is_written(tmp_path: object) -> None:
    old, new = (
        host_of(os.path.join(str(tmp_path), "1"), V2, (1, 7)),
        host_of(os.path.join(str(tmp_path), "2"), V2, (2, 1)),
    )
    old.install()
    new.install()
    assert not os.path.exists(os.path.join(os.path.dirname(old.config), "conf.d"))
    assert "imports" not in tomllib.loads(old.read(old.config))
    drop_in = os.path.join(os.path.dirname(new.config), "conf.d/unikeel.toml")
    assert tomllib.loads(new.read(drop_in))["version"] == 2
    assert tomllib.loads(new.read(new.config))["imports"] == [drop_in]


def test_a_block_stays_a_block_when_containerd_gets_newer(tmp_path: object) -> None:
    host = host_of(tmp_path, V2, (1, 7))
    host.install()
    host.containerd = (2, 1)
    assert host.plan().changes == ()
    host.install(snapshotter="erofs")
    images = tomllib.loads(host.read(host.config))["plugins"]["io.containerd.cri.v1.images"]
    assert images == {"runtime_platforms": {"unikeel": {"snapshotter": "erofs"}}}


class TestWhatSomebodyChanged:
    def test_is_named_and_left(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        host.install()
        unit = os.path.join(host.directory, "units/unikeel.service")
        host.write(unit, "# mine now\n")
        plan = host.uninstall()
        assert [sentence for sentence in plan.left if unit in sentence] == list(plan.left) != []
        assert host.read(unit) == "# mine now\n"
        assert not os.path.exists(os.path.join(host.directory, "units/unikeel.socket"))
        assert host.read(host.config) == V3
        assert [entry.path for entry in record.read(host.root)] == [unit]
        os.unlink(unit)
        assert host.uninstall().left == ()

    def test_of_containerd_s_configuration_stays_around_what_we_take_out(self, tmp_path: object) -> None:
        for number, (config, containerd) in enumerate(((V3, (2, 1)), (V2, (1, 7)))):
            host = host_of(os.path.join(str(tmp_path), str(number)), config, containerd)
            host.install()
            host.write(host.config, host.read(host.config) + "[debug]\nlevel = 'debug'\n")
            assert host.uninstall().left == ()
            assert host.read(host.config) == config + "[debug]\nlevel = 'debug'\n"
            assert os.path.exists(host.config + ".before-unikeel")

    def test_an_import_that_cannot_be_taken_out_keeps_its_file(self, tmp_path: object) -> None:
        """Or containerd would not start again."""
        host = host_of(tmp_path, V3, (2, 1))
        host.install()
        drop_in = os.path.join(os.path.dirname(host.config), "conf.d/unikeel.toml")
        host.write(host.config, V3.replace("version", f"imports = ['/x',\n '{drop_in}']\nversion"))
        plan = host.uninstall()
        assert len(plan.left) == 2
        assert os.path.exists(drop_in)
        assert not os.path.exists(os.path.join(host.directory, "bin/containerd-shim-unikeel-v2"))

    def test_a_file_that_was_there_before_us_comes_back(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        unit = os.path.join(host.directory, "units/unikeel.socket")
        host.write(unit, "# older\n")
        os.chmod(unit, 0o600)
        original = host.files()
        host.install()
        host.install(handler="other")
        assert host.read(unit + ".before-unikeel") == "# older\n"
        host.uninstall()
        assert host.files() == original

    def test_meanwhile_stops_us(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        plan = host.plan()
        host.write(host.config, V3 + "# a word\n")
        with pytest.raises(FailedPrecondition, match="in this moment"):
            executing.carry_out(plan, host.root)
        assert host.read(host.config) == V3 + "# a word\n"
        host.uninstall()
        assert host.read(host.config) == V3 + "# a word\n"
        assert not os.path.exists(os.path.join(host.directory, "bin"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "containerd", "kind", "part"),
        [
            (None, None, NotFound, "no containerd on the PATH"),
            ("", None, NotFound, "names no version"),
            ("[plugins.cri]\n", (1, 7), InvalidArgument, "containerd config migrate"),
            ("version = 1\n", (2, 1), InvalidArgument, "version 1"),
            ("version = 9\n", (2, 1), InvalidArgument, "version 9"),
            ("version = 'x'\n", (2, 1), InvalidArgument, "version 'x'"),
            ("version = [\n", (2, 1), UnikeelError, "is not TOML"),
            ("version = 3\nimports = ['/no/such.toml']\n", (2, 1), FailedPrecondition, "/no/such.toml, which is not there"),
            (V3 + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.unikeel]\n", (2, 1), FailedPrecondition, "not ours"),
            (V2 + '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.unikeel]\n', (1, 7), FailedPrecondition, "not ours"),
            ("version = 2\nplugins = {}\n", (1, 7), FailedPrecondition, "by hand"),
        ],
    )  # fmt: skip
    def test_a_sentence_each(
        self,
        tmp_path: object,
        config: str | None,
        containerd: tuple[int, int] | None,
        kind: type[UnikeelError],
        part: str,
    ) -> None:
        host = host_of(tmp_path, config, containerd)
        with pytest.raises(kind) as caught:
            host.plan()
        assert part in str(caught.value)
        assert host.files() == host.original

    def test_an_import_that_would_hide_our_table_in_1_x(self, tmp_path: object) -> None:
        host = host_of(tmp_path, "imports = ['more/*.toml']\n" + V2, (1, 7))
        host.write(os.path.join(os.path.dirname(host.config), "more/a.toml"), V2)
        with pytest.raises(FailedPrecondition, match="replaces ours"):
            host.plan()
        host.containerd = (2, 0)
        host.install()

    def test_a_runtime_of_ours_in_an_import_of_somebody(self, tmp_path: object) -> None:
        host = host_of(tmp_path, "imports = ['a.toml']\n" + V3, (2, 1))
        host.write(os.path.join(os.path.dirname(host.config), "a.toml"), texts.drop_in(3, "unikeel", ""))
        with pytest.raises(FailedPrecondition, match=r"a\.toml has a runtime unikeel already"):
            host.plan()

    @pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "a.b", "a_b", "ä", "x" * 64, "runc", 'a"b'])
    def test_handlers(self, name: str) -> None:
        with pytest.raises(InvalidArgument):
            texts.check_handler(name)

    @pytest.mark.parametrize("name", ["-x", "a b", 'a"', "é", "x" * 77, "a\nb"])
    def test_snapshotters(self, name: str) -> None:
        with pytest.raises(InvalidArgument):
            texts.check_snapshotter(name)

    def test_a_directory_in_the_way(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        os.makedirs(os.path.join(host.directory, "units/unikeel.socket"))
        with pytest.raises(FailedPrecondition, match="is a directory"):
            host.plan()

    def test_a_damaged_record(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        for text in (
            "",
            "[]",
            '{"format": 2}',
            '{"format": 1, "entries": [{"path": "x", "kind": "file"}]}',
            '{"format": 1, "entries": [3]}',
        ):
            host.write(record.path_of(host.root), text)
            with pytest.raises(UnikeelError, match="damaged"):
                record.read(host.root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("containerd github.com/containerd/containerd v1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182", (1, 7)),
        ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b2", (1, 7)),
        ("containerd github.com/containerd/containerd/v2 2.1.9 abc", (2, 1)),
        ("containerd github.com/containerd/containerd/v2 v2.4.0-beta.0 abc", (2, 4)),
        ("containerd github.com/containerd/containerd 1.6.39", (1, 6)),
        ("something else", None),
        ("", None),
    ],
)
def test_containerd_s_version(tmp_path: object, text: str, expected: tuple[int, int] | None) -> None:
    program = os.path.join(str(tmp_path), "containerd")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\necho '{text}'\n")
    os.chmod(program, 0o755)
    assert situation.containerd_version(program) == expected
    assert situation.containerd_version("/no/such/containerd") is None


@pytest.mark.parametrize(
    ("item", "covered"),
    [("conf.d/*.toml", True), ("/etc/containerd/conf.d/unikeel.toml", True), ("/etc/*/*.toml", False), ("*.toml", False), ("./conf.d/u*", True)],
)  # fmt: skip
def test_which_imports_cover_a_file(item: str, *, covered: bool) -> None:
    assert situation.covers([item], "/etc/containerd/config.toml", "/etc/containerd/conf.d/unikeel.toml") is covered


def test_units_that_systemd_has_enabled_are_disabled(tmp_path: object) -> None:
    host = host_of(tmp_path, V3, (2, 1))
    host.install()
    wants = os.path.join(host.directory, "units/sockets.target.wants")
    os.makedirs(wants)
    os.symlink(os.path.join(host.directory, "units/unikeel.socket"), os.path.join(wants, "unikeel.socket"))
    os.symlink("/elsewhere", os.path.join(wants, "other.socket"))
    host.uninstall()
    assert os.listdir(wants) == ["other.socket"]


class TestCommand:
    """The command itself, as a process."""

    def run(self, host: Host, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        launcher = os.path.join(host.directory, "bin")
        os.makedirs(os.path.join(host.directory, "path"), exist_ok=True)
        containerd = os.path.join(host.directory, "path/containerd")
        host.write(containerd, "#!/bin/sh\necho containerd x/v2 2.1.9 y\n")
        os.chmod(containerd, 0o755)
        options = (
            "--containerd-config",
            host.config,
            "--bin-dir",
            launcher,
            "--unit-dir",
            os.path.join(host.directory, "units"),
        )
        return subprocess.run(
            [sys.executable, "-m", "unikeel.cli.main", "--root", host.root, "install", "containerd", *options, *words],
            env={"PATH": f"{host.directory}/path:{os.path.dirname(sys.executable)}:/usr/bin:/bin"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @pytest.fixture(autouse=True)
    def built(self) -> None:
        from unikeel.shim.launcher import building

        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        assert building.main([os.path.join(root, "build/launcher/containerd-shim-unikeel-v2")]) == 0

    def test_shown_written_and_taken_back(self, tmp_path: object) -> None:
        host = host_of(tmp_path, V3, (2, 1))
        os.makedirs(os.path.join(host.directory, "path"))
        host.write(os.path.join(host.directory, "path/containerd"), "")
        shown = self.run(host, "--dry-run", "--systemd")
        assert shown.returncode == 0, shown
        assert "+imports = [" in shown.stdout
        assert "nothing was written (--dry-run)" in shown.stdout
        before = host.files()
        refused = self.run(host, "--systemd", stdin="y\n")
        assert (refused.returncode, refused.stderr) == (
            75,
            "unikeel: nothing was written: nobody can be asked (--yes writes, --dry-run only shows)\n",
        )
        assert host.files() == before
        written = json.loads(self.run(host, "--systemd", "--yes", "--json").stdout)
        assert written["written"] is True
        assert written["next"] == [
            "systemctl daemon-reload",
            "systemctl enable --now unikeel.socket",
            "systemctl restart containerd",
        ]
        row = next(row for row in written["changes"] if row["path"] == host.config)
        assert (row["action"], row["backup"]) == ("change", host.config + ".before-unikeel")
        again = self.run(host, "--systemd", "--yes")
        assert again.stdout == "nothing to do\n"
        undone = self.run(host, "--uninstall", "--yes")
        assert "next: systemctl restart containerd" in undone.stdout
        assert host.files() == before

    def test_options_that_exclude_each_other(self, tmp_path: object) -> None:
        done = self.run(host_of(tmp_path, V3, (2, 1)), "--systemd", "--no-systemd")
        assert (done.returncode, done.stderr) == (2, "unikeel: --systemd and --no-systemd exclude each other\n")
