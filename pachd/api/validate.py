"""Fields that a request must have, refused in the words that Pachyderm's generated validators use."""

from google.protobuf.message import Message

from pachd.errors import InvalidArgument

# Full message name -> its required message field. Source: the validation rules of Pachyderm 2.12's requests.
REQUIRED = {
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
    """Check that `request` has its required field.

    :param streams: the RPC streams in some direction, which Pachyderm words differently.
    :raises InvalidArgument: it has not.
    """
    field = REQUIRED.get(request.DESCRIPTOR.full_name)
    if field and not request.HasField(field):
        words = "".join(part.capitalize() for part in field.split("_"))
        raise InvalidArgument(
            f"validate {'recv' if streams else 'request'}: invalid {request.DESCRIPTOR.name}.{words}: value is required"
        )
