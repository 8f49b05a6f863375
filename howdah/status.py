"""What runs and what there is, in one look."""

from typing import Any

from howdah.pachyderm import describe_commit, iso, job_state, show_repo
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2


def status(client: Client) -> dict[str, Any]:
    """The server, its repos with their branch heads, its pipelines and its last jobs. Raises RpcError."""
    version = client.version.GetVersion(timeout=10)
    repos = []
    for info in client.pfs.ListRepo(pfs_pb2.ListRepoRequest(type="user")):
        branches = []
        for branch in client.pfs.ListBranch(pfs_pb2.ListBranchRequest(repo=info.repo)):
            head = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=branch.head))
            branches.append({"branch": branch.branch.name, **describe_commit(head)})
        repos.append({"repo": show_repo(info.repo), "description": info.description, "branches": branches})
    pipelines = [_pipeline(info) for info in _pipelines(client)]
    return {
        "address": client.address,
        "version": f"{version.major}.{version.minor}.{version.micro}{version.additional}",
        "repos": sorted(repos, key=lambda repo: str(repo["repo"])),
        "pipelines": sorted(pipelines, key=lambda pipeline: str(pipeline["pipeline"])),
    }


def _pipelines(client: Client) -> list[pps_pb2.PipelineInfo]:
    try:
        return list(client.pps.ListPipeline(pps_pb2.ListPipelineRequest(details=True)))
    except RpcError as e:
        if "not found" in e.message:
            return []
        raise


def _pipeline(info: pps_pb2.PipelineInfo) -> dict[str, Any]:
    last = pps_pb2.JobInfo(state=info.last_job_state)
    return {
        "pipeline": info.pipeline.name,
        "version": info.version,
        "state": pps_pb2.PipelineState.Name(info.state).removeprefix("PIPELINE_").lower(),
        "last_job": job_state(last) if info.last_job_state else None,
        "reason": info.reason or None,
        "created": iso(info.details.created_at),
    }
