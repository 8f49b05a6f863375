"""Fsck of output that no datum answers for."""

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import create, glob, head, last_job, new_repo, pipeline


def fsck(client: Client, **what: object) -> list[str]:
    return [answer.error for answer in client.pfs.Fsck(pfs_pb2.FsckRequest(**what))]  # type: ignore[arg-type]


def test_files_of_datums_that_are_gone_are_named(client: Client) -> None:
    new_repo(client, "graves", {"/a": b"1", "/b": b"2"})
    create(client, "digger", "cp /pfs/graves/* /pfs/out/", glob("graves"))
    assert last_job(client, "digger").state == pps_pb2.JOB_SUCCESS
    assert fsck(client, zombie_all=True) == fsck(client, zombie_target=head("digger")) == []

    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("digger")))
    requests = [pfs_pb2.ModifyFileRequest(set_commit=head("digger"))]
    for datum, path in (("undead", "/z"), ("undead", "/c"), ("", "/plain")):
        requests.append(pfs_pb2.ModifyFileRequest(add_file={"path": path, "datum": datum, "raw": {"value": b"x"}}))
    client.pfs.ModifyFile(iter(requests))
    told = [
        "stale datum default had file /plain",
        "stale datum undead had file /c",
        "stale datum undead had file /z",
    ]
    assert fsck(client, zombie_target=head("digger")) == told
    assert fsck(client) == []
    client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("digger"), wait=pfs_pb2.FINISHED))
    assert [line for line in fsck(client, zombie_all=True) if "undead" in line or "plain" in line] == told
    with pytest.raises(RpcError) as caught:
        fsck(client, zombie_target=head("graves"))
    assert caught.value.code is Status.NOT_FOUND
