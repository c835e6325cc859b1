"""What a caller's configuration mounts, as volumes of a task."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from unikeel.config import defaults
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.model.image_fields import GuestConfig
from unikeel.model.volumes import Volume
from unikeel.model.ways import Way
from unikeel.shim.deciding import TaskSettings, decide
from unikeel.shim.disks import RootMount
from unikeel.shim.ocispec import Spec, parse
from unikeel.shim.wishes import Wishes

_POD: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/dev/shm", "type": "bind", "source": "/run/pod/shm", "options": ["rbind"]},
    {"destination": "/etc/hosts", "type": "bind", "source": "/pod/hosts", "options": ["rbind", "rw"]},
    {
        "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
        "type": "bind",
        "source": "/pod/t",
        "options": ["rbind", "ro"],
    },
]
_DATA: dict[str, Any] = {"destination": "/data/", "type": "none", "source": "/srv", "options": ["bind", "ro"]}
_CACHE: dict[str, Any] = {"destination": "/cache", "type": "tmpfs", "source": "tmpfs"}
_EXT4 = RootMount("ext4", "/disk", ("rw",))
_INITRD = GuestConfig("linux", "qemu", "/k", initrd="/i")
_GENERIC = GuestConfig("generic", "qemu", "/k", mount_rootfs=True)
_DEFAULT = GuestConfig("linux", "qemu", "none", mount_rootfs=True, kernel="default")


def _spec(*mounts: dict[str, Any], **more: object) -> Spec:
    return parse(json.dumps({"mounts": mounts, **more}).encode())


def _decide(guest: GuestConfig, spec: Spec) -> TaskSettings:
    return decide("t", spec, guest, Wishes(), defaults()._replace(monitor_virtiofsd_path="/bin/sh"), [_EXT4])


def test_bind_mounts_are_volumes_but_for_what_a_guest_has_of_its_own() -> None:
    spec = _spec(*_POD, _DATA, _CACHE)
    assert spec.volumes == (
        Volume("/pod/hosts", "/etc/hosts", optional=True),
        Volume("/pod/t", "/var/run/secrets/kubernetes.io/serviceaccount", read_only=True, optional=True),
        Volume("/srv", "/data", read_only=True),
    )
    assert spec.unmounted == ("tmpfs at /cache",)


@pytest.mark.parametrize(
    "mount",
    [
        {**_DATA, "destination": "/a/../.."},
        {**_DATA, "destination": "data"},
        {**_DATA, "destination": "/"},
        {**_DATA, "source": "srv"},
        {**_DATA, "options": "bind"},
        {**_DATA, "source": "/a\0b"},
    ],
)
def test_mounts_that_cannot_be_are_refused(mount: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        _spec(mount)


def test_each_guest_gets_them_in_its_way() -> None:
    found = _decide(_DEFAULT, _spec(*_POD, _DATA))
    assert (found.way, found.volumes_share, len(found.volumes), found.left_out) == (Way.SHARE, "virtiofs", 3, ())
    found = _decide(_INITRD, _spec(*_POD, _DATA))
    assert (found.way, len(found.volumes)) == (Way.ARCHIVE, 3)
    assert found.to_json()["volumes"] == {
        "/etc/hosts": "/pod/hosts",
        "/var/run/secrets/kubernetes.io/serviceaccount": "/pod/t",
        "/data": "/srv",
    }


def test_what_a_guest_cannot_be_given_is_refused_unless_it_can_do_without() -> None:
    found = _decide(_GENERIC, _spec(*_POD, _CACHE))
    assert (found.way, found.volumes) == (Way.NONE, ())
    assert [text.partition(" is left out: ")[0] for text in found.left_out] == [
        "the volume at /etc/hosts",
        "the volume at /var/run/secrets/kubernetes.io/serviceaccount",
        "the mount of the type tmpfs at /cache",
    ]
    with pytest.raises(Unimplemented, match="cannot be given the volume at /data") as refused:
        _decide(_GENERIC, _spec(*_POD, _DATA))
    assert refused.value.hint == "say org.unikeel.volumes=optional if the guest can do without"
    found = _decide(_GENERIC, _spec(*_POD, _DATA, annotations={"org.unikeel.volumes": "optional"}))
    assert len(found.left_out) == 3


def _raw(path: str, major: int, minor: int, kind: str = "b") -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor}


def _devices(*rules: dict[str, Any]) -> Spec:
    devices = [
        _raw("/dev/xvda", 7, 1),
        _raw("/dev/xvdb", 7, 2),
        _raw("/dev/fuse", 10, 229, "c"),
        _raw("/dev/null", 1, 3, "c"),
    ]
    resources = {"devices": [{"allow": False, "access": "rwm"}, *rules]}
    return _spec(linux={"devices": devices, "resources": resources})


_READ: dict[str, Any] = {"allow": True, "type": "b", "major": 7, "minor": 2, "access": "rm"}
_WRITE: dict[str, Any] = {"allow": True, "type": "b", "major": 7, "minor": 1, "access": "rwm"}


def test_block_devices_that_are_named_reach_a_guest_that_can_be_told_what_they_are_called() -> None:
    spec = _devices(_WRITE, _READ)
    one = Volume("/dev/xvda", "/dev/xvda", disk=True, number=os.makedev(7, 1))
    other = Volume("/dev/xvdb", "/dev/xvdb", read_only=True, disk=True, number=os.makedev(7, 2))
    assert spec.blocks == (one, other)
    told = _decide(_DEFAULT, spec)
    assert told.volumes == (one, other)
    assert told.left_out == ("devices are left out: /dev/fuse: guests have devices of their own",)
    left = _decide(_INITRD, spec)
    assert left.volumes == ()
    assert left.left_out == ("devices are left out: /dev/xvda, /dev/xvdb, /dev/fuse: guests have devices of their own",)


def test_a_privileged_container_s_devices_are_the_host_s() -> None:
    assert _devices({"allow": True, "access": "rwm"}).blocks == ()
    assert _devices({"allow": True, "type": "a", "access": "rwm"}).blocks == ()


@pytest.mark.parametrize("number", [-1, 1 << 20, "1", True])
def test_a_device_s_number_that_is_none_is_refused(number: object) -> None:
    with pytest.raises(InvalidArgument):
        _spec(linux={"devices": [{"path": "/dev/x", "type": "b", "major": 1, "minor": number}]})
