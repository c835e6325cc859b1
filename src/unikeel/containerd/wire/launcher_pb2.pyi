from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class LaunchRequest(_message.Message):
    __slots__ = ("args", "cwd", "input", "ttrpc_address", "grpc_address", "namespace", "id", "bundle", "max_version")
    ARGS_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TTRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    input: bytes
    ttrpc_address: str
    grpc_address: str
    namespace: str
    id: str
    bundle: str
    max_version: int
    def __init__(self, args: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., input: _Optional[bytes] = ..., ttrpc_address: _Optional[str] = ..., grpc_address: _Optional[str] = ..., namespace: _Optional[str] = ..., id: _Optional[str] = ..., bundle: _Optional[str] = ..., max_version: _Optional[int] = ...) -> None: ...

class LaunchResponse(_message.Message):
    __slots__ = ("exit", "output", "error", "exec", "relay")
    EXIT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    exit: int
    output: bytes
    error: str
    exec: str
    relay: bool
    def __init__(self, exit: _Optional[int] = ..., output: _Optional[bytes] = ..., error: _Optional[str] = ..., exec: _Optional[str] = ..., relay: _Optional[bool] = ...) -> None: ...

class RelayRequest(_message.Message):
    __slots__ = ("grpc_address", "namespace", "id", "bundle", "output")
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    grpc_address: str
    namespace: str
    id: str
    bundle: str
    output: bytes
    def __init__(self, grpc_address: _Optional[str] = ..., namespace: _Optional[str] = ..., id: _Optional[str] = ..., bundle: _Optional[str] = ..., output: _Optional[bytes] = ...) -> None: ...
