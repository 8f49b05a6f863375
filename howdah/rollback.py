"""Back to an earlier commit: the head of a branch moves, history stays."""

from typing import Any

from howdah.pachyderm import Problem, commit_info, describe_commit, show_repo
from pachd.client import Client, parse_ref
from pachd.proto import pfs_pb2


def rollback(client: Client, branch: pfs_pb2.Branch, to: str) -> dict[str, Any]:
    """Move the head of an input branch to another commit of the same repo; pipelines run again with it.

    :param to: a commit ID, or an ancestor such as `master^`.
    :return: `from` and `to` as commits, and `started`, the output branches that got a commit (and so a job) by it.
    :raises Problem: an output branch, a commit that is not finished or carries an error, or one of another repo.
    :raises RpcError: no such repo, branch or commit.
    """
    before = client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch))
    name = f"{show_repo(branch.repo)}@{branch.name}"
    if before.direct_provenance:
        inputs = [
            f"{show_repo(b.repo)}@{b.name}" for b in before.provenance if not b.repo.type or b.repo.type == "user"
        ]
        sources = [i for i, b in zip(inputs, _user(before.provenance), strict=True) if not _is_output(client, b)]
        raise Problem(
            f"{name} is the output of a pipeline: its commits follow from its inputs and cannot be moved. "
            f"Roll back an input instead: {' or '.join(sources or inputs)}"
        )
    target = commit_info(client, _target(branch, to))
    if target.error:
        raise Problem(f"commit {target.commit.id} of {name} failed and cannot be a head: {target.error}")
    if not target.HasField("finished"):
        raise Problem(f"commit {target.commit.id} of {name} is not finished")
    old = commit_info(client, before.head)
    outputs = [(b, _head(client, b)) for b in _user(before.subvenance)]
    moved = target.commit.id != before.head.id
    if moved:
        request = pfs_pb2.CreateBranchRequest(head=target.commit, branch=branch)
        if before.HasField("trigger"):
            request.trigger.CopyFrom(before.trigger)
        client.pfs.CreateBranch(request)
    started = [
        {"branch": f"{show_repo(output.repo)}@{output.name}", "commit": now}
        for output, head in outputs
        if (now := _head(client, output)) != head
    ]
    return {
        "branch": name,
        "moved": moved,
        "from": describe_commit(old),
        "to": describe_commit(target),
        "started": sorted(started, key=lambda s: s["branch"]),
    }


def _user(branches: Any) -> list[pfs_pb2.Branch]:
    return [b for b in branches if b.repo.type in ("", "user")]


def _is_output(client: Client, branch: pfs_pb2.Branch) -> bool:
    return bool(client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch)).direct_provenance)


def _head(client: Client, branch: pfs_pb2.Branch) -> str:
    return client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch)).head.id


def _target(branch: pfs_pb2.Branch, to: str) -> pfs_pb2.Commit:
    if "@" in to:
        named = parse_ref(to).commit
        if (named.repo.project.name, named.repo.name) != (branch.repo.project.name, branch.repo.name):
            raise Problem(f"{to} is not a commit of {show_repo(branch.repo)}")
        return named
    return parse_ref(f"{branch.repo.project.name}/{branch.repo.name}@{to}").commit
