"""The sandbox's configuration, compared whole; the pieces of running it."""

from __future__ import annotations

import json
import os

import pytest

from unikeel.errors import Unavailable
from unikeel.kernel import paths
from unikeel.model.plan import ExitRule, FileRole, LaunchPlan, PlanFile
from unikeel.sandbox import remains, root, runtime
from unikeel.sandbox.seccomp import profile
from unikeel.sandbox.spec import SandboxRequest, build, memory_limit

_PLAN = LaunchPlan(
    argv=("/usr/bin/qemu", "-kernel", "/proc/self/fd/3"),
    files=(PlanFile(FileRole.KERNEL, writable=False),),
    devices=("/dev/null",),
    environment=("LC_ALL=C",),
    memory_mib=64,
    binds=("/usr/share/none", "/usr/lib/none"),
    exit=ExitRule.SAME,
    powerdown=False,
)
_REQUEST = SandboxRequest("c1", _PLAN, "/run/root", "/unikeel-c1", 2000000007, 2, 128 << 20)


def test_the_whole() -> None:
    nothing: list[str] = []
    assert build(_REQUEST) == {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": "/run/root", "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": 2000000007, "gid": 2000000007},
            "args": ["/usr/bin/qemu", "-kernel", "/proc/self/fd/3"],
            "env": ["PATH=/usr/bin", "HOME=/", "LC_ALL=C"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), nothing),
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["ro", "nosuid", "noexec", "mode=755", "size=64k"],
            },
            *(
                {"destination": path, "type": "bind", "source": path, "options": ["bind", "ro", "nosuid", "nodev"]}
                for path in ("/usr/share/none", "/usr/lib/none")
            ),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "cgroupsPath": "/unikeel-c1",
            "rootfsPropagation": "private",
            "devices": [
                {
                    "path": "/dev/null",
                    "type": "c",
                    "major": 1,
                    "minor": 3,
                    "fileMode": 0o600,
                    "uid": 2000000007,
                    "gid": 2000000007,
                }
            ],
            "resources": {
                "memory": {"limit": (64 + 128) << 20},
                "cpu": {"quota": 300_000, "period": 100_000, "shares": 2048},
                "pids": {"limit": 512},
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
                ],
            },
            "seccomp": profile(),
            "maskedPaths": [
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/acpi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
    assert memory_limit(_REQUEST) == 192 << 20
    json.dumps(build(_REQUEST))


def test_system_calls() -> None:
    rules = profile()["syscalls"]
    assert isinstance(rules, list)
    allowed = set(rules[0]["names"])
    forbidden = (
        "mount umount2 unshare setns pivot_root chroot ptrace process_vm_writev bpf keyctl init_module chmod fchmod fchmodat chown fchown "
        "link linkat symlink mknod mkdir rename truncate setxattr io_uring_setup userfaultfd perf_event_open open_by_handle_at open_tree "
        "move_mount fsopen mount_setattr socket pidfd_getfd kexec_load reboot"
    )
    assert allowed.isdisjoint(forbidden.split())
    assert rules[1] == {
        "names": ["socket"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "it said nothing"),
        ("\n\n", "it said nothing"),
        ("one\ntwo\n\n", "two"),
        ("\x1b[31mred\x07\n", "?[31mred?"),
        ("x" * 900, "x" * 400),
    ],
)
def test_last_line(text: str, line: str) -> None:
    assert runtime.last_line(text) == line


def test_finding_a_runtime(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PROGRAM_DIRECTORIES", (str(tmp_path),))
    for choice in ("auto", "crun", "runc"):
        with pytest.raises(Unavailable, match="no OCI runtime"):
            runtime.find_runtime(choice)
    for name in ("runc", "crun"):
        path = os.path.join(tmp_path, name)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
        assert runtime.find_runtime("auto") == runtime.Runtime(name, path)
    assert runtime.find_runtime("runc").name == "runc"
    assert runtime.find_runtime("crun").closes_extra_descriptors
    assert not runtime.find_runtime("runc").closes_extra_descriptors


def test_the_root_gets_its_mount_points(tmp_path: os.PathLike[str]) -> None:
    directory = os.path.join(tmp_path, "root")
    for _ in range(2):
        root.prepare_root(directory, ["/usr/bin/env", "/usr/lib"])
    assert os.path.getsize(directory + root.destination("/usr/bin/env")) == 0
    assert os.listdir(directory + root.destination("/usr/lib")) == []
    assert {"proc", "dev", "tmp", "usr"} <= set(os.listdir(directory))
    with pytest.raises(Unavailable, match="/nonexistent/x"):
        root.prepare_root(directory, ["/nonexistent/x"])


def test_removing_trees(tmp_path: os.PathLike[str]) -> None:
    top = os.path.join(tmp_path, "top")
    os.makedirs(os.path.join(top, "a", "b"))
    os.symlink("/usr", os.path.join(top, "a", "link"))
    os.close(os.open(os.path.join(top, "file"), os.O_CREAT | os.O_WRONLY, 0o600))
    paths.remove_tree(top)
    paths.remove_tree(top)
    assert os.listdir(tmp_path) == []
    assert os.path.isdir("/usr/bin")


def test_processes_are_found_by_their_mark() -> None:
    import subprocess
    import sys

    ident = os.urandom(6).hex()
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"UNIKEEL_CONTAINER": ident},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    assert list(remains.marked(ident)) == [child.pid]
    assert list(remains.marked(ident[:-1])) == []
    remains.kill_marked(ident)
    child.communicate()
    assert child.returncode == -9


def test_a_monitor_that_writes_gets_a_place_in_memory_of_its_own_and_no_other_does() -> None:
    plain, scratch = build(_REQUEST), build(_REQUEST._replace(plan=_PLAN._replace(scratch=5 << 20)))
    mounts = [mount for mount in scratch["mounts"] if mount not in plain["mounts"]]  # type: ignore[attr-defined, operator]  # lists
    assert mounts == [
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["rw", "nosuid", "nodev", "mode=700", "uid=2000000007", "gid=2000000007", "size=5242880"],
        }
    ]
    assert {**scratch, "mounts": plain["mounts"]} == plain


def test_system_calls_beyond_the_list_are_for_those_that_need_them() -> None:
    plain = profile()["syscalls"]
    more = profile(("ptrace", "personality"))["syscalls"]
    assert isinstance(plain, list)
    assert isinstance(more, list)
    assert set(more[0]["names"]) - set(plain[0]["names"]) == {"ptrace"}
    assert more[1:] == [
        *plain[1:],
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"}],
        },
    ]


def test_a_monitor_that_opens_a_tap_by_its_name_joins_the_namespace() -> None:
    """Others have one of their own, with nothing in it."""
    joined = build(_REQUEST._replace(network="/run/unikeel/netns/c1"))["linux"]
    assert isinstance(joined, dict)
    assert {"type": "network", "path": "/run/unikeel/netns/c1"} in joined["namespaces"]
