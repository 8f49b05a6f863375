"""Everything upstream and downstream of a commit."""

from typing import Any

from howdah.pachyderm import commit_info, describe_commit, describe_job, is_missing
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2

SYSTEM = ("spec", "meta")


def lineage(client: Client, commit: pfs_pb2.Commit, everything: bool = False) -> dict[str, Any]:
    """The commit with the trees of its `upstream` (what it was made of) and `downstream` (what was made of it).

    :param everything: also the spec and meta repos that each pipeline has.
    :raises RpcError: no such repo, branch or commit.
    """
    seen: dict[tuple[str, str, str, str], pfs_pb2.CommitInfo] = {}

    def info_of(one: pfs_pb2.Commit) -> pfs_pb2.CommitInfo:
        key = (one.repo.project.name, one.repo.name, one.repo.type, one.id)
        if key not in seen:
            seen[key] = commit_info(client, one)
        return seen[key]

    def node(info: pfs_pb2.CommitInfo) -> dict[str, Any]:
        described = describe_commit(info)
        labels = {key: value for key, value in info.metadata.items() if key.startswith("howdah.")}
        if labels:
            described["metadata"] = labels
        if info.origin.kind != pfs_pb2.OriginKind.USER and info.commit.repo.type == "user":
            described["job"] = _job(client, info.commit)
        return described

    def tree(info: pfs_pb2.CommitInfo, down: bool) -> list[dict[str, Any]]:
        side = info.direct_subvenance if down else info.direct_provenance
        found = []
        for next_commit in sorted(side, key=lambda c: (c.repo.project.name, c.repo.name, c.repo.type)):
            if next_commit.repo.type in SYSTEM and not everything:
                continue
            below = info_of(next_commit)
            found.append({**node(below), "downstream" if down else "upstream": tree(below, down)})
        return found

    start = commit_info(client, commit)
    return {**node(start), "upstream": tree(start, False), "downstream": tree(start, True)}


def _job(client: Client, commit: pfs_pb2.Commit) -> dict[str, Any] | None:
    """The job that made an output commit; None for a commit that no pipeline made."""
    pipeline = pps_pb2.Pipeline(name=commit.repo.name, project=commit.repo.project)
    try:
        request = pps_pb2.InspectJobRequest(job=pps_pb2.Job(pipeline=pipeline, id=commit.id))
        return describe_job(client.pps.InspectJob(request))
    except RpcError as e:
        if is_missing(e):
            return None
        raise
