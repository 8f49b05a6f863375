"""Transactions: a log of requests. Each one is tried with all before it when it is added; finishing executes the log.

The transaction's ID is the ID of the commit set that it makes, so what a dry run answers stays true.
"""

import uuid
from collections.abc import Callable
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pfs import branches, commits, commitsets, hooks, propagate, refs, repos
from pachd.proto import pfs_pb2, transaction_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch

Response = transaction_pb2.TransactionResponse


def _create_repo(txn: Txn, request: pfs_pb2.CreateRepoRequest) -> None:
    if not request.HasField("repo"):
        raise PachError("repo cannot be nil")
    repos.create_repo(txn, refs.repo_of(request.repo), request.description, request.update)


def delete_repo(txn: Txn, request: pfs_pb2.DeleteRepoRequest) -> bool:
    """Execute a DeleteRepoRequest; returns whether there was such a repo."""
    if not request.HasField("repo"):
        raise PachError("must specify repo")
    repo = refs.repo_of(request.repo)
    repos.refuse_pipelines(txn, repo)
    return repos.delete_repo(txn, repo, request.force)


def _delete_repo(txn: Txn, request: pfs_pb2.DeleteRepoRequest) -> None:
    delete_repo(txn, request)


def start_commit(txn: Txn, request: pfs_pb2.StartCommitRequest) -> Response:
    """Execute a StartCommitRequest; the answer names the commit."""
    if not request.HasField("branch"):
        raise PachError("start commit in transaction: branch must be specified")
    branch = Branch(refs.repo_of(request.branch.repo), request.branch.name)
    parent = request.parent if request.HasField("parent") else None
    try:
        commit = commits.start_commit(txn, branch, parent, request.description)
    except PachError as err:
        raise err.wrapped("start commit in transaction") from err
    return Response(commit=refs.commit_pb(refs.resolve_commit(txn, (commit.repo, commit.id))))


def _finish_commit(txn: Txn, request: pfs_pb2.FinishCommitRequest) -> None:
    if not request.HasField("commit"):
        raise PachError("check new file commit: commit cannot be nil")
    if not request.commit.HasField("repo") and not request.commit.branch.HasField("repo"):
        raise PachError("check new file commit: commit must have a repo")
    commits.finish_commit(txn, request.commit, request.description, request.error, request.force)


def _squash(txn: Txn, request: pfs_pb2.SquashCommitSetRequest) -> None:
    if not request.HasField("commit_set"):
        raise PachError("commitset cannot be nil")
    commitsets.squash_commit_set(txn, request.commit_set.id)


def create_branch(txn: Txn, request: pfs_pb2.CreateBranchRequest) -> None:
    """Execute a CreateBranchRequest."""
    if not request.HasField("branch"):
        raise PachError("branch cannot be nil")
    if not request.branch.HasField("repo"):
        raise PachError("branch repo cannot be nil")
    head = request.head if request.HasField("head") else None
    provenance = [Branch(refs.repo_of(b.repo), b.name) for b in request.provenance]
    never = set()
    for spec in request.branch_propagation_specs:
        source = Branch(refs.repo_of(spec.branch.repo), spec.branch.name)
        if spec.propagation_spec.never or source not in provenance:
            never.add(source)
    branches.create_branch(
        txn,
        Branch(refs.repo_of(request.branch.repo), request.branch.name),
        head,
        provenance,
        request.trigger if request.HasField("trigger") else None,
        never,
    )


def _delete_branch(txn: Txn, request: pfs_pb2.DeleteBranchRequest) -> None:
    branches.delete_branch(txn, Branch(refs.repo_of(request.branch.repo), request.branch.name), request.force)


# By the field of TransactionRequest; those of pipelines are the store's hooks.
executors: dict[str, Callable[[Txn, Any], Response | None]] = {
    "create_repo": _create_repo,
    "delete_repo": _delete_repo,
    "start_commit": start_commit,
    "finish_commit": _finish_commit,
    "squash_commit_set": _squash,
    "create_branch": create_branch,
    "delete_branch": _delete_branch,
}


_MOVE = ("start_commit", "create_branch")  # requests that move the branch they name


def _load(txn: Snapshot, id: str) -> transaction_pb2.TransactionInfo:
    row = txn.db.execute("SELECT info FROM transactions WHERE id=?", (id,)).fetchone()
    if row is None:
        raise NotFound(f"transactions {id} not found")
    return transaction_pb2.TransactionInfo.FromString(row["info"])


def start(txn: Txn) -> transaction_pb2.TransactionInfo:
    """Open a transaction."""
    info = transaction_pb2.TransactionInfo(started=refs.timestamp(txn.now))
    info.transaction.id = uuid.uuid4().hex
    txn.db.execute("INSERT INTO transactions VALUES (?,?)", (info.transaction.id, info.SerializeToString()))
    return info


def inspect(txn: Snapshot, id: str) -> transaction_pb2.TransactionInfo:
    """Return an open transaction. Raises NotFound."""
    return _load(txn, id)


def list_all(txn: Snapshot) -> list[transaction_pb2.TransactionInfo]:
    """Return the open transactions, newest first."""
    rows = txn.db.execute("SELECT info FROM transactions").fetchall()
    infos = [transaction_pb2.TransactionInfo.FromString(row["info"]) for row in rows]
    return sorted(infos, key=lambda info: info.started.ToNanoseconds(), reverse=True)


def delete(txn: Txn, id: str) -> None:
    """Forget a transaction. Raises NotFound."""
    _load(txn, id)
    txn.db.execute("DELETE FROM transactions WHERE id=?", (id,))


def delete_all(txn: Txn) -> None:
    """Forget all open transactions."""
    txn.db.execute("DELETE FROM transactions")


def append(txn: Txn, id: str, request: transaction_pb2.TransactionRequest) -> Response:
    """Add a request to a transaction, after a dry run of the whole log; returns what that answered.

    Raises NotFound, or what the request would raise: it is then not added.
    """
    info = _load(txn, id)
    info.requests.append(request)
    with txn.savepoint() as point:
        responses = _execute(txn, info)
        point.discard()
    propagate.forget(txn)
    del info.responses[:]
    info.responses.extend(responses)
    info.version += 1
    txn.db.execute("UPDATE transactions SET info=? WHERE id=?", (info.SerializeToString(), id))
    return responses[-1]


def finish(txn: Txn, id: str) -> transaction_pb2.TransactionInfo:
    """Execute a transaction's log and close it. Raises NotFound, or what a request raises: it then stays open."""
    info = _load(txn, id)
    responses = _execute(txn, info)
    del info.responses[:]
    info.responses.extend(responses)
    txn.db.execute("DELETE FROM transactions WHERE id=?", (id,))
    return info


def batch(txn: Txn, requests: list[transaction_pb2.TransactionRequest]) -> transaction_pb2.TransactionInfo:
    """Execute requests as one transaction, at once. Raises what a request raises: then none has happened."""
    for request in requests:
        pipeline = request.create_pipeline_v2
        if request.HasField("create_pipeline_v2") and not pipeline.HasField("create_pipeline_request"):
            raise PachError("run pre-transaction operations: nil CreatePipelineRequest in CreatePipelineTransaction")
        if pipeline.created_by:  # it is the caller, whatever the request says
            pipeline.ClearField("created_by")
    info = transaction_pb2.TransactionInfo(requests=requests, started=refs.timestamp(txn.now))
    info.transaction.id = uuid.uuid4().hex
    info.responses.extend(_execute(txn, info))
    return info


def _execute(txn: Txn, info: transaction_pb2.TransactionInfo) -> list[Response]:
    txn.state["commit set"] = info.transaction.id
    responses = []
    moved: dict[Branch, None] = {}
    for number, request in enumerate(info.requests, 1):
        try:
            responses.append(_one(txn, request))
        except PachError as err:
            raise err.wrapped(f"error running request {number} of {len(info.requests)}") from err
        for field, message in request.ListFields():
            if field.name in _MOVE:
                branch = Branch(refs.repo_of(message.branch.repo), message.branch.name)
                found = refs.find_branch(txn, branch)
                if found is not None and propagate.is_touched(txn, found["pk"]):
                    moved[branch] = None
    for branch in moved:
        _refuse_deleted(txn, branch)
    propagate.run(txn)
    return responses


def _refuse_deleted(txn: Snapshot, branch: Branch) -> None:
    """Raise NotFound if a branch that was moved in this transaction has been deleted since: Pachyderm validates the
    branches that were moved when the transaction ends."""
    if refs.find_branch(txn, branch) is not None:
        return
    told = f"branch (id=0, branch={branch}) not found"
    try:
        refs.repo_row(txn, branch.repo)
    except NotFound:
        told = f"{refs.missing_repo(txn, branch.repo)}\n{told}"
    raise NotFound(
        f'validate DAG at end of transaction: loading branch info for "{branch}" during validation: '
        f"get branch info: {told}"
    )


def _one(txn: Txn, request: transaction_pb2.TransactionRequest) -> Response:
    for field, message in request.ListFields():
        executor = executors.get(field.name) or hooks.of(txn).executors.get(field.name)
        if executor is None:
            continue
        authorize = txn.state.get("authorize")  # while access control is active: may the caller?
        if authorize is not None and not authorize(txn, field.name, message):
            return Response()
        return executor(txn, message) or Response()
    raise PachError("unrecognized transaction request type")
