"""Inputs that start no jobs, and commits that jobs do not write."""

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import create, glob, head, job_list, new_repo, pipeline, put, repo

QUIET = {"propagation_spec": {"never": True}}


def jobs(client: Client, name: str) -> int:
    return len(job_list(client, name, history=-1))


def test_an_input_that_never_propagates_starts_no_job(client: Client) -> None:
    new_repo(client, "loud", {"/a": b"1"})
    new_repo(client, "quiet", {"/b": b"2"})
    both = {"cross": [glob("loud"), glob("quiet", **QUIET)]}
    create(client, "listener", "true", both)
    assert jobs(client, "listener") == 1
    put(client, "quiet", {"/c": b"3"})
    assert jobs(client, "listener") == 1
    put(client, "loud", {"/d": b"4"})
    assert jobs(client, "listener") == 2
    last = job_list(client, "listener")[0].output_commit
    request = pfs_pb2.WalkCommitProvenanceRequest(start=[{"id": {"repo": {"name": _name("listener")}, "id": last.id}}])
    sources = {info.commit.repo.name: info.commit.id for info in client.pfs.WalkCommitProvenance(request)}
    newest = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("quiet"))).commit.id
    assert sources["quiet"] == newest  # the job reads what came meanwhile all the same


def _name(name: str) -> pfs_pb2.RepoPicker.RepoName:
    return pfs_pb2.RepoPicker.RepoName(project=pfs_pb2.ProjectPicker(name="default"), name=name, type="user")


def test_whether_an_input_propagates_follows_the_spec(client: Client) -> None:
    new_repo(client, "tap", {"/a": b"1"})
    create(client, "basin", "true", glob("tap", **QUIET))
    branch = pfs_pb2.InspectBranchRequest(branch=pfs_pb2.Branch(repo=repo("basin"), name="master"))
    (spec,) = client.pfs.InspectBranch(branch).branch_propagation_specs
    assert (spec.branch.repo.name, spec.propagation_spec.never) == ("tap", True)
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("basin")))
    assert not client.pfs.InspectBranch(branch).branch_propagation_specs
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("basin")))
    assert len(client.pfs.InspectBranch(branch).branch_propagation_specs) == 1
    create(client, "basin", "true", glob("tap"), update=True)
    assert not client.pfs.InspectBranch(branch).branch_propagation_specs
    before = jobs(client, "basin")
    put(client, "tap", {"/b": b"2"})
    assert jobs(client, "basin") == before + 1


def test_commits_that_users_start_in_a_stopped_pipeline_are_theirs_to_finish(client: Client) -> None:
    new_repo(client, "reservoir", {"/a": b"1"})
    create(client, "dam", "sleep 1000", glob("reservoir"))

    def finish(kind: str) -> None:
        client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=head("dam", kind)))

    for kind in ("user", "meta"):
        with pytest.raises(RpcError, match="cannot finish a pipeline output or meta commit, use 'stop job' instead"):
            finish(kind)
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("dam")))
    for kind in ("user", "meta"):
        started = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=head("dam", kind).branch))
        finish(kind)
        done = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=started, wait=pfs_pb2.FINISHED))
        assert done.error == ""
