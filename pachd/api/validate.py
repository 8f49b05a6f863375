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
    "pps_v2.UpdateJobStateRequest": "job",
    "taskapi.ListTaskRequest": "group",
    "transaction_v2.DeleteTransactionRequest": "transaction",
    "transaction_v2.FinishTransactionRequest": "transaction",
    "transaction_v2.InspectTransactionRequest": "transaction",
}


def validate(request: Message, streams: bool) -> None:
    """Check that `request` has its required field, and that its times are such.

    :param streams: the RPC streams in some direction, which Pachyderm words differently.
    :raises InvalidArgument: it has not, or they are not.
    """
    for field_with_time in _timed_fields(request.DESCRIPTOR):
        _check_times(request, field_with_time)
    field = REQUIRED.get(request.DESCRIPTOR.full_name)
    if field and not request.HasField(field):
        words = "".join(part.capitalize() for part in field.split("_"))
        raise InvalidArgument(
            f"validate {'recv' if streams else 'request'}: invalid {request.DESCRIPTOR.name}.{words}: value is required"
        )


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
