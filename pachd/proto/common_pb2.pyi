from pachd.proto import pfs_pb2 as _pfs_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Input(_message.Message):
    __slots__ = ("file_info", "name", "join_on", "outer_join", "group_by", "lazy", "branch", "empty_files", "s3", "reference")
    FILE_INFO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    JOIN_ON_FIELD_NUMBER: _ClassVar[int]
    OUTER_JOIN_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    LAZY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FILES_FIELD_NUMBER: _ClassVar[int]
    S3_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    file_info: _pfs_pb2.FileInfo
    name: str
    join_on: str
    outer_join: bool
    group_by: str
    lazy: bool
    branch: str
    empty_files: bool
    s3: bool
    reference: bool
    def __init__(self, file_info: _Optional[_Union[_pfs_pb2.FileInfo, _Mapping]] = ..., name: _Optional[str] = ..., join_on: _Optional[str] = ..., outer_join: _Optional[bool] = ..., group_by: _Optional[str] = ..., lazy: _Optional[bool] = ..., branch: _Optional[str] = ..., empty_files: _Optional[bool] = ..., s3: _Optional[bool] = ..., reference: _Optional[bool] = ...) -> None: ...
