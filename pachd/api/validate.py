"""Fields that a request must have, refused in the words that Pachyderm's generated validators use."""

import functools

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pachd.errors import InvalidArgument

# Full message name -> its required message field. Source: the validation rules of Pachyderm 2.12's requests.
REQUIRED = {
    "auth_v2.AuthorizeRequest": "resource",
    "auth_v2.GetPermissionsForPrincipalRequest": "resource",
    "auth_v2.GetPermissionsRequest": "resource",
    "auth_v2.GetRoleBindingRequest": "resource",
    "auth_v2.ModifyRoleBindingRequest": "resource",
    "auth_v2.RestoreAuthTokenRequest": "token",
    "pfs_v2.DeleteBranchRequest": "branch",
    "pfs_v2.DropCommitSetRequest": "commit_set",
    "pfs_v2.FindCommitsRequest": "start",
    "pfs_v2.InspectProjectRequest": "project",
    "pfs_v2.InspectProjectV2Request": "project",
    "pps_v2.DeletePipelineRequest": "pipeline",
    "pps_v2.DeleteSecretRequest": "secret",
    "pps_v2.InspectJobSetRequest": "job_set",
    "pps_v2.InspectPipelineRequest": "pipeline",
    "pps_v2.InspectSecretRequest": "secret",
    "pps_v2.RerunPipelineRequest": "pipeline",
    "pps_v2.RunCronRequest": "pipeline",
    "pps_v2.StartCreateDatumRequest": "input",
    "pps_v2.UpdateJobStateRequest": "job",
    "taskapi.ListTaskRequest": "group",
    "transaction_v2.DeleteTransactionRequest": "transaction",
    "transaction_v2.FinishTransactionRequest": "transaction",
    "transaction_v2.InspectTransactionRequest": "transaction",
}
NOT_EMPTY = {"pps_v2.Pipeline": "name"}
NOT_NEGATIVE = {"pps_v2.StartCreateDatumRequest": "number", "pps_v2.ContinueCreateDatumRequest": "number"}


def validate(request: Message, streams: bool) -> None:
    """Check that `request`, and what is in it, has its required fields, and that its times are such.

    :param streams: the RPC streams in some direction, which Pachyderm words differently.
    :raises InvalidArgument: it has not, or they are not.
    """
    for field_with_time in _timed_fields(request.DESCRIPTOR):
        _check_times(request, field_with_time)
    if problems := _problems(request):
        raise InvalidArgument(f"validate {'recv' if streams else 'request'}: {'; '.join(problems)}")


def _problems(message: Message) -> list[str]:
    """What is wrong with a message and with those in it, in the words of Pachyderm's validators."""
    kind = message.DESCRIPTOR
    found: list[str] = []

    def tell(name: str, reason: str) -> None:
        found.append(f"invalid {kind.name}.{name}: {reason}")

    for field in _ruled_fields(kind):
        name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
        value = getattr(message, field.name)
        if field.is_repeated:
            for index, one in enumerate(value):
                if below := _problems(one):
                    tell(f"{name}[{index}]", f"embedded message failed validation | caused by: {'; '.join(below)}")
        elif field.message_type is not None:
            if not message.HasField(field.name):
                if REQUIRED.get(kind.full_name) == field.name:
                    tell(name, "value is required")
            elif below := _problems(value):
                tell(name, f"embedded message failed validation | caused by: {'; '.join(below)}")
        elif NOT_EMPTY.get(kind.full_name) == field.name:
            if not value:
                tell(name, "value length must be at least 1 bytes")
        elif value < 0:
            tell(name, "value must be greater than or equal to 0")
    return found


@functools.cache
def _ruled_fields(kind: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a message that have a rule, or somewhere below one with a rule; alternatives come last."""
    found = [f for f in kind.fields if _has_rule(kind, f, frozenset())]
    return tuple(sorted(found, key=lambda f: _is_alternative(f)))


def _is_alternative(field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and not oneof.name.startswith("_")


def _has_rule(kind: Descriptor, field: FieldDescriptor, above: frozenset[str]) -> bool:
    if any(rules.get(kind.full_name) == field.name for rules in (REQUIRED, NOT_EMPTY, NOT_NEGATIVE)):
        return True
    below = field.message_type
    if below is None or below.GetOptions().map_entry or below.full_name in above:  # an input of inputs
        return False
    return any(_has_rule(below, f, above | {below.full_name}) for f in below.fields)


@functools.cache
def _timed_fields(kind: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a message that are, or somewhere below have, a Timestamp or a Duration."""
    return tuple(f for f in kind.fields if f.message_type is not None and _has_time(f.message_type, frozenset()))


def _has_time(kind: Descriptor, above: frozenset[str]) -> bool:
    if kind.full_name in (Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name):
        return True
    if kind.full_name in above:  # an input of inputs
        return False
    above |= {kind.full_name}
    return any(f.message_type is not None and _has_time(f.message_type, above) for f in kind.fields)


def _check_times(message: Message, field: FieldDescriptor) -> None:
    """Refuse a time outside of the years 1 to 9999, or with a part of a second that is none: protobuf's own rule,
    without which it can neither be stored as JSON nor shown."""
    if not field.is_repeated and not message.HasField(field.name):
        return
    value = getattr(message, field.name)
    kind = field.message_type
    assert kind is not None, field.full_name
    if kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        values = list(value.values()) if inner.message_type is not None else []
    else:
        values = list(value) if field.is_repeated else [value]
    for one in values:
        if isinstance(one, Timestamp | Duration):
            try:
                one.ToJsonString()
            except ValueError as error:
                name = f"{message.DESCRIPTOR.name}.{field.name}"
                raise InvalidArgument(f"invalid {name}: {str(error).rstrip('.')}") from None
        else:
            for below in _timed_fields(one.DESCRIPTOR):
                _check_times(one, below)
