"""Messages for every RPC: random bytes, and well-formed ones with absurd contents."""

import random
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from pachd import client as _client  # importing it fills the descriptor pool with every service
from pachd.proto import pfs_pb2, pps_pb2

assert _client.Client

SERVICES = (
    "pfs_v2.API",
    "pps_v2.API",
    "transaction_v2.API",
    "admin_v2.API",
    "versionpb_v2.API",
    "auth_v2.API",
    "enterprise_v2.API",
    "license_v2.API",
    "identity_v2.API",
    "metadata.API",
    "storage.Fileset",
    "debug_v2.Debug",
    "pachyderm.worker.Worker",
)
DEPTH = 6  # of messages within messages; an input of inputs may go on for ever

STRINGS = (
    ["", " ", "a", "master", "default", "user", "meta", "spec", "images", "labels", "/", "/a", "/dir/b", "/**", "/*"]
    + ["*", "..", "/../etc/passwd", "//", "/a//b", "a/b", ".", "-", "^", "master^", "master~3", "master.1", "^^^^"]
    + ["master~-1", "master^9999999999999999999", "@", ":", "=", "images@master:/a", "{a,b", "[", "[!a", "**{", "((("]
    + ["@(a|", "\\", "$1", "é" * 30, "\u202e\u0000", "a\nb", "'; DROP TABLE repos; --", "%s%n", "x" * 300, "y" * 70_000]
    + ["*" * 40, "/" * 500, "0" * 32, "f" * 32, "z" * 32, "0" * 31, "1e400", "NaN", "-1", "true", "null", "{}", "[]"]
    + [
        '{"a":',
        "@every 1s",
        "* *",
        "* * * * *",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "http://169.254.169.254/",
    ]
    + ["s3://b/k", "gs://b", "sh", "true", "cat"]
)
NUMBERS = (0, 1, 2, -1, 7, 255, 65_536, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
BLOBS = (b"", b"x", b"\x00" * 100, bytes(range(256)), b"not a tar" * 100, b"z" * 70_000)

F = FieldDescriptor
RANGES: dict[int, tuple[int, int]] = {
    F.TYPE_INT32: (-(2**31), 2**31 - 1), F.TYPE_SINT32: (-(2**31), 2**31 - 1), F.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    F.TYPE_UINT32: (0, 2**32 - 1), F.TYPE_FIXED32: (0, 2**32 - 1),
    F.TYPE_INT64: (-(2**63), 2**63 - 1), F.TYPE_SINT64: (-(2**63), 2**63 - 1), F.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    F.TYPE_UINT64: (0, 2**64 - 1), F.TYPE_FIXED64: (0, 2**64 - 1),
}  # fmt: skip


def methods() -> list[MethodDescriptor]:
    """Every RPC of every service that a client may call."""
    pool = descriptor_pool.Default()
    return [method for name in SERVICES for method in pool.FindServiceByName(name).methods]


class Maker:
    """Makes messages; the same seed makes the same ones.

    :param known: gives the names and IDs that exist on the server now, so that some messages hit.
    """

    def __init__(self, seed: int, known: Callable[[], list[str]] = list) -> None:
        self.random = random.Random(seed)
        self.known = known

    def requests(self, method: MethodDescriptor) -> list[bytes]:
        """What to send in one call: usually one message; several, or none, where the client may stream."""
        count = self.random.choice((0, 1, 2, 3, 8)) if method.client_streaming else 1
        return [self._encoded(method) for _ in range(count)]

    def _encoded(self, method: MethodDescriptor) -> bytes:
        kind = self.random.random()
        if kind < 0.05:
            return self.random.randbytes(self.random.choice((1, 3, 20, 300)))
        data = self.message(message_factory.GetMessageClass(method.input_type)).SerializeToString()
        if kind < 0.1 and data:  # one that was damaged on its way
            at = self.random.randrange(len(data))
            data = data[:at] + self.random.randbytes(1) + data[at + self.random.randrange(3) :]
        return data

    def message(self, kind: type[Message], depth: int = 0) -> Message:
        """A message with some of its fields set."""
        made = kind()
        full = self.random.random() < 0.5  # else a sparse one
        for field in made.DESCRIPTOR.fields:
            if self.random.random() > (0.8 if full else 0.35) or depth > DEPTH:
                continue
            self._set(made, field, depth)
        if depth and isinstance(made, pfs_pb2.Repo | pfs_pb2.Branch | pfs_pb2.Commit | pps_pb2.Pipeline):
            self._name(made)
        return made

    def _set(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target: Any = getattr(made, field.name)
            value = field.message_type.fields_by_name["value"]
            for _ in range(self.random.randrange(3)):
                key = self._scalar(field.message_type.fields_by_name["key"])
                if value.message_type is not None:
                    target[key].MergeFrom(self.message(message_factory.GetMessageClass(value.message_type), depth + 1))
                else:
                    target[key] = self._scalar(value)
        elif field.message_type is not None:
            kind = message_factory.GetMessageClass(field.message_type)
            if field.is_repeated:
                getattr(made, field.name).extend(
                    self.message(kind, depth + 1) for _ in range(self.random.choice((0, 1, 1, 2, 5)))
                )
            else:
                getattr(made, field.name).CopyFrom(self.message(kind, depth + 1))
        elif field.is_repeated:
            getattr(made, field.name).extend(self._scalar(field) for _ in range(self.random.choice((0, 1, 1, 3))))
        else:
            setattr(made, field.name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        if field.type == F.TYPE_STRING:
            known = self.known() if self.random.random() < 0.5 else []
            return self.random.choice(known or STRINGS)
        if field.type == F.TYPE_BYTES:
            return self.random.choice(BLOBS)
        if field.type == F.TYPE_BOOL:
            return self.random.random() < 0.5
        if field.type in (F.TYPE_DOUBLE, F.TYPE_FLOAT):
            return self.random.choice((0.0, 1.0, -1.0, 1e30, float("inf"), float("nan")))
        if field.type == F.TYPE_ENUM:
            numbers = [value.number for value in field.enum_type.values]
            return self.random.choice([*numbers, *numbers, 99])
        low, high = RANGES[field.type]
        return self.random.choice([n for n in NUMBERS if low <= n <= high])

    def _name(self, made: Message) -> None:
        # a name that exists at every level, often enough that calls reach further than the first check
        if self.random.random() < 0.6:
            names = {"Repo": ("images", "labels", "copies"), "Branch": ("master", "other"), "Pipeline": ("copies",)}
            if isinstance(made, pfs_pb2.Commit):
                made.ClearField("id")
                made.branch.name = "master"
                made.repo.name = self.random.choice(names["Repo"])
            else:
                made.name = self.random.choice(names[made.DESCRIPTOR.name])  # type: ignore[attr-defined]
            repo = made if isinstance(made, pfs_pb2.Repo) else getattr(made, "repo", None)
            if isinstance(repo, pfs_pb2.Repo):
                repo.name = repo.name if isinstance(made, pfs_pb2.Repo) else self.random.choice(names["Repo"])
                repo.type = "user"
                repo.project.name = "default"
            elif isinstance(made, pps_pb2.Pipeline):
                made.project.name = "default"
