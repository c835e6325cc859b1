"""The wire definitions: the generated modules are those of the definitions, and say what containerd says."""

from __future__ import annotations

import glob
import importlib
import os
import subprocess
import sys

import pytest
from google.protobuf.message import Message

import unikeel.containerd.wire
from unikeel.containerd.wire import (
    bootstrap_pb2,
    content_pb2,
    events_pb2,
    launcher_pb2,
    metrics_v1_pb2,
    metrics_v2_pb2,
    options_runc_pb2,
    options_runtime_pb2,
    task_pb2,
    task_types_pb2,
    tasks_pb2,
    ttrpc_pb2,
    types_pb2,
)

_WIRE = os.path.dirname(os.path.abspath(unikeel.containerd.wire.__file__))
_SOURCE = os.path.normpath(os.path.join(_WIRE, "..", "..", ".."))
_PROTOS = sorted(os.path.basename(path) for path in glob.glob(os.path.join(_WIRE, "*.proto")))


def test_the_modules_are_made_of_the_definitions(tmp_path: object) -> None:
    arguments = [f"unikeel/containerd/wire/{name}" for name in _PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, *arguments], cwd=_SOURCE, check=True, timeout=60)
    for name in _PROTOS:
        for ending in ("_pb2.py", "_pb2.pyi"):
            module = name.removesuffix(".proto") + ending
            with open(os.path.join(_WIRE, module), encoding="utf-8") as file:
                kept = file.read()
            with open(f"{tmp_path}/unikeel/containerd/wire/{module}", encoding="utf-8") as file:
                assert file.read() == kept, f"{module}: make protos"


def test_nothing_generated_is_left_without_its_definition() -> None:
    modules = {os.path.basename(path) for path in glob.glob(os.path.join(_WIRE, "*_pb2.py*"))}
    expected = {name.removesuffix(".proto") + ending for name in _PROTOS for ending in ("_pb2.py", "_pb2.pyi")}
    assert modules == expected


@pytest.mark.parametrize("name", _PROTOS)
def test_every_module_can_be_imported(name: str) -> None:
    importlib.import_module(f"unikeel.containerd.wire.{name.removesuffix('.proto')}_pb2")


def test_names_on_the_wire() -> None:
    messages: list[tuple[type[Message], str]] = [
        (task_pb2.CreateTaskRequest, "containerd.task.v2.CreateTaskRequest"),
        (task_types_pb2.Process, "containerd.v1.types.Process"),
        (types_pb2.RuntimeInfo, "containerd.types.RuntimeInfo"),
        (tasks_pb2.CreateTaskRequest, "containerd.services.tasks.v1.CreateTaskRequest"),
        (events_pb2.TaskExit, "containerd.events.TaskExit"),
        (metrics_v1_pb2.Metrics, "io.containerd.cgroups.v1.Metrics"),
        (metrics_v2_pb2.Metrics, "io.containerd.cgroups.v2.Metrics"),
        (options_runtime_pb2.Options, "runtimeoptions.v1.Options"),
        (options_runc_pb2.Options, "containerd.runc.v1.Options"),
        (bootstrap_pb2.BootstrapParams, "containerd.runtime.bootstrap.v1.BootstrapParams"),
        (content_pb2.WriteContentRequest, "containerd.services.content.v1.WriteContentRequest"),
        (launcher_pb2.LaunchRequest, "unikeel.launcher.v1.LaunchRequest"),
    ]
    assert [(kind.DESCRIPTOR.full_name, name) for kind, name in messages if kind.DESCRIPTOR.full_name != name] == []


def test_the_bytes_of_a_request_are_those_of_the_protocol_s_page() -> None:
    request = ttrpc_pb2.Request(service="s", method="m", payload=b"p", timeout_nano=5)
    request.metadata.add(key="k", value="v")
    assert request.SerializeToString() == b"\x0a\x01s\x12\x01m\x1a\x01p\x20\x05\x2a\x06\x0a\x01k\x12\x01v"
    assert ttrpc_pb2.Response(payload=b"p").SerializeToString() == b"\x12\x01p"
    status = ttrpc_pb2.Status(code=5, message="m")
    assert ttrpc_pb2.Response(status=status).SerializeToString() == b"\x0a\x05\x08\x05\x12\x01m"


def test_field_numbers_that_others_write_by_hand() -> None:
    assert {field.name: field.number for field in launcher_pb2.LaunchRequest.DESCRIPTOR.fields} == {
        "args": 1,
        "cwd": 2,
        "input": 3,
        "ttrpc_address": 4,
        "grpc_address": 5,
        "namespace": 6,
        "id": 7,
        "bundle": 8,
        "max_version": 9,
    }
    assert {field.name: field.number for field in launcher_pb2.LaunchResponse.DESCRIPTOR.fields} == {
        "exit": 1,
        "output": 2,
        "error": 3,
        "exec": 4,
        "relay": 5,
    }
    assert (task_types_pb2.CREATED, task_types_pb2.PAUSED) == (1, 4)
    assert metrics_v2_pb2.Metrics.DESCRIPTOR.fields_by_name["memory"].number == 4


def test_another_definition_of_status_may_live_in_the_same_process() -> None:
    """A name may be defined only once in a process, and ``google.rpc.Status`` is somebody else's."""
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "import unikeel.containerd.wire.ttrpc_pb2, unikeel.containerd.wire.introspection_pb2\n"
        "file = descriptor_pb2.FileDescriptorProto(name='google/rpc/status.proto', package='google.rpc')\n"
        "file.message_type.add(name='Status')\n"
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_command_does_not_import_what_is_for_containerd() -> None:
    code = "import unikeel.cli.main, unikeel, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    heavy = ("google.protobuf", "grpclib", "unikeel.containerd", "unikeel.shim")
    assert [name for name in done.stdout.split() if name.startswith(heavy)] == []
