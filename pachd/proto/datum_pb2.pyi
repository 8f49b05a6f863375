from pachd.proto import common_pb2 as _common_pb2
from pachd.proto import pfs_pb2 as _pfs_pb2
from pachd.proto import pps_pb2 as _pps_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESSED: _ClassVar[State]
    FAILED: _ClassVar[State]
    RECOVERED: _ClassVar[State]
PROCESSED: State
FAILED: State
RECOVERED: State

class Meta(_message.Message):
    __slots__ = ("job", "inputs", "hash", "state", "reason", "stats", "index", "image_id")
    JOB_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    job: _pps_pb2.Job
    inputs: _containers.RepeatedCompositeFieldContainer[_common_pb2.Input]
    hash: str
    state: State
    reason: str
    stats: _pps_pb2.ProcessStats
    index: int
    image_id: str
    def __init__(self, job: _Optional[_Union[_pps_pb2.Job, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[_common_pb2.Input, _Mapping]]] = ..., hash: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[str] = ..., stats: _Optional[_Union[_pps_pb2.ProcessStats, _Mapping]] = ..., index: _Optional[int] = ..., image_id: _Optional[str] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("process_stats", "processed", "skipped", "total", "failed", "recovered", "failed_id")
    PROCESS_STATS_FIELD_NUMBER: _ClassVar[int]
    PROCESSED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_ID_FIELD_NUMBER: _ClassVar[int]
    process_stats: _pps_pb2.ProcessStats
    processed: int
    skipped: int
    total: int
    failed: int
    recovered: int
    failed_id: str
    def __init__(self, process_stats: _Optional[_Union[_pps_pb2.ProcessStats, _Mapping]] = ..., processed: _Optional[int] = ..., skipped: _Optional[int] = ..., total: _Optional[int] = ..., failed: _Optional[int] = ..., recovered: _Optional[int] = ..., failed_id: _Optional[str] = ...) -> None: ...

class PFSTask(_message.Message):
    __slots__ = ("input", "path_range", "base_index", "auth_token")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    PATH_RANGE_FIELD_NUMBER: _ClassVar[int]
    BASE_INDEX_FIELD_NUMBER: _ClassVar[int]
    AUTH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    input: _pps_pb2.PFSInput
    path_range: _pfs_pb2.PathRange
    base_index: int
    auth_token: str
    def __init__(self, input: _Optional[_Union[_pps_pb2.PFSInput, _Mapping]] = ..., path_range: _Optional[_Union[_pfs_pb2.PathRange, _Mapping]] = ..., base_index: _Optional[int] = ..., auth_token: _Optional[str] = ...) -> None: ...

class PFSTaskResult(_message.Message):
    __slots__ = ("file_set_id",)
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    def __init__(self, file_set_id: _Optional[str] = ...) -> None: ...

class CrossTask(_message.Message):
    __slots__ = ("file_set_ids", "base_file_set_index", "base_file_set_path_range", "base_index", "auth_token")
    FILE_SET_IDS_FIELD_NUMBER: _ClassVar[int]
    BASE_FILE_SET_INDEX_FIELD_NUMBER: _ClassVar[int]
    BASE_FILE_SET_PATH_RANGE_FIELD_NUMBER: _ClassVar[int]
    BASE_INDEX_FIELD_NUMBER: _ClassVar[int]
    AUTH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    file_set_ids: _containers.RepeatedScalarFieldContainer[str]
    base_file_set_index: int
    base_file_set_path_range: _pfs_pb2.PathRange
    base_index: int
    auth_token: str
    def __init__(self, file_set_ids: _Optional[_Iterable[str]] = ..., base_file_set_index: _Optional[int] = ..., base_file_set_path_range: _Optional[_Union[_pfs_pb2.PathRange, _Mapping]] = ..., base_index: _Optional[int] = ..., auth_token: _Optional[str] = ...) -> None: ...

class CrossTaskResult(_message.Message):
    __slots__ = ("file_set_id",)
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    def __init__(self, file_set_id: _Optional[str] = ...) -> None: ...

class KeyTask(_message.Message):
    __slots__ = ("file_set_id", "path_range", "type", "auth_token")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JOIN: _ClassVar[KeyTask.Type]
        GROUP: _ClassVar[KeyTask.Type]
    JOIN: KeyTask.Type
    GROUP: KeyTask.Type
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_RANGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AUTH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    path_range: _pfs_pb2.PathRange
    type: KeyTask.Type
    auth_token: str
    def __init__(self, file_set_id: _Optional[str] = ..., path_range: _Optional[_Union[_pfs_pb2.PathRange, _Mapping]] = ..., type: _Optional[_Union[KeyTask.Type, str]] = ..., auth_token: _Optional[str] = ...) -> None: ...

class KeyTaskResult(_message.Message):
    __slots__ = ("file_set_id",)
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    def __init__(self, file_set_id: _Optional[str] = ...) -> None: ...

class MergeTask(_message.Message):
    __slots__ = ("file_set_ids", "path_range", "type", "auth_token")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JOIN: _ClassVar[MergeTask.Type]
        GROUP: _ClassVar[MergeTask.Type]
    JOIN: MergeTask.Type
    GROUP: MergeTask.Type
    FILE_SET_IDS_FIELD_NUMBER: _ClassVar[int]
    PATH_RANGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AUTH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    file_set_ids: _containers.RepeatedScalarFieldContainer[str]
    path_range: _pfs_pb2.PathRange
    type: MergeTask.Type
    auth_token: str
    def __init__(self, file_set_ids: _Optional[_Iterable[str]] = ..., path_range: _Optional[_Union[_pfs_pb2.PathRange, _Mapping]] = ..., type: _Optional[_Union[MergeTask.Type, str]] = ..., auth_token: _Optional[str] = ...) -> None: ...

class MergeTaskResult(_message.Message):
    __slots__ = ("file_set_id",)
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    def __init__(self, file_set_id: _Optional[str] = ...) -> None: ...

class ComposeTask(_message.Message):
    __slots__ = ("file_set_ids", "auth_token")
    FILE_SET_IDS_FIELD_NUMBER: _ClassVar[int]
    AUTH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    file_set_ids: _containers.RepeatedScalarFieldContainer[str]
    auth_token: str
    def __init__(self, file_set_ids: _Optional[_Iterable[str]] = ..., auth_token: _Optional[str] = ...) -> None: ...

class ComposeTaskResult(_message.Message):
    __slots__ = ("file_set_id",)
    FILE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    file_set_id: str
    def __init__(self, file_set_id: _Optional[str] = ...) -> None: ...

class SetSpec(_message.Message):
    __slots__ = ("number", "size_bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    size_bytes: int
    def __init__(self, number: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...
