"""Names, requests and refusals that the tests of access control share."""

from collections.abc import Callable
from typing import Any

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2


def repo(name: str, project: str = "default", kind: str = "user") -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type=kind, project=pfs_pb2.Project(name=project))


def branch(name: str) -> pfs_pb2.Branch:
    return pfs_pb2.Branch(repo=repo(name), name="master")


def head(name: str) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=repo(name), branch=branch(name))


def file(name: str, path: str = "/") -> pfs_pb2.File:
    return pfs_pb2.File(commit=head(name), path=path)


def create(client: Client, name: str, project: str = "default") -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name, project)))


def put(client: Client, name: str, path: str, content: bytes = b"x") -> None:
    add = pfs_pb2.AddFile(path=path, raw={"value": content})
    client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=head(name)), pfs_pb2.ModifyFileRequest(add_file=add)])


def pipeline(name: str, source: str) -> pps_pb2.CreatePipelineRequest:
    return pps_pb2.CreatePipelineRequest(
        pipeline=pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name="default")),
        transform=pps_pb2.Transform(cmd=["sh"], stdin=[f"cp /pfs/{source}/* /pfs/out/", "echo done"]),
        input=pps_pb2.Input(pfs=pps_pb2.PFSInput(repo=source, glob="/*")),
    )


def refused(call: Callable[[], Any], *permissions: str, on: str) -> None:
    """Check that a call ends in Pachyderm's sentence about missing permissions."""
    with pytest.raises(RpcError) as caught:
        result = call()
        if not isinstance(result, pfs_pb2.FileInfo | pfs_pb2.Commit) and hasattr(result, "__next__"):
            list(result)
    assert caught.value.code is Status.PERMISSION_DENIED, caught.value
    words = f"is not authorized to perform this operation - needs permissions [{' '.join(permissions)}] on {on}. Run "
    assert words in caught.value.message, caught.value.message
