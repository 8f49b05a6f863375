"""`Commit.branch` in answers: Pachyderm 2.12 leaves it empty, python-pachyderm 7.6 was written when it was filled."""

from typing import TypeVar

from google.protobuf.message import Message

from pachd.api.service import Call
from pachd.proto import pfs_pb2

M = TypeVar("M", bound=Message)


def strip_branch(call: Call, message: M) -> M:
    """Empty the branch of the commits that `message` is about, unless the client is an old one; returns `message`.

    These are CommitInfo's commit and parent, a branch's head, and a bare Commit. Children and provenance keep theirs.
    """
    if call.old_client:
        return message
    if isinstance(message, pfs_pb2.CommitInfo):
        message.commit.ClearField("branch")
        if message.HasField("parent_commit"):
            message.parent_commit.ClearField("branch")
    elif isinstance(message, pfs_pb2.BranchInfo):
        if message.HasField("head"):
            message.head.ClearField("branch")
    elif isinstance(message, pfs_pb2.Commit):
        message.ClearField("branch")
    elif isinstance(message, pfs_pb2.CommitSetInfo):
        for info in message.commits:
            strip_branch(call, info)
    elif isinstance(message, pfs_pb2.FindCommitsResponse):
        which = message.WhichOneof("result")
        if which:
            getattr(message, which).ClearField("branch")
    return message
