"""Commits: started, written to, finished; inspected and listed."""

from collections.abc import Callable, Iterator

from pachd.auth import owners
from pachd.errors import NotFound, PachError
from pachd.pfs import branches, filesets, hooks, propagate, refs, triggers
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Commit, Repo

USER, AUTO, FSCK = pfs_pb2.USER, pfs_pb2.AUTO, pfs_pb2.FSCK

# Called in the transaction in which a commit finishes.
on_finished: list[Callable[[Txn, refs.CommitRow], None]] = [triggers.fire]


def start_commit(
    txn: Txn, branch: Branch, parent: Commit | pfs_pb2.Commit | None = None, description: str = ""
) -> Commit:
    """Open a commit on a branch (made if need be), on top of its head or of `parent`; returns its key.

    Raises NotFound, or PachError if the parent is still open or the branch is written by propagation.
    """
    if not branch.name:
        raise PachError("branch must be specified")
    repo = refs.repo_row(txn, branch.repo)
    refs.check_name(branch.name)
    found = refs.find_branch(txn, branch)
    try:
        parent_pk = found["head_pk"] if found is not None else None
        if parent is not None:
            parent_pk = _parent_pk(txn, branch, parent)
        if parent_pk is not None and (above := refs.commit_row(txn, parent_pk)).state < pfs_pb2.FINISHING:
            raise PachError(f"parent commit {above.key} has not been finished")
        pk = propagate.make_commit(txn, repo["pk"], branch.name, USER, parent_pk, description)
        if refs.is_id(branch.name):
            raise PachError("create commit: update head: branch name cannot be a UUID V4")
    except PachError as err:
        raise err.wrapped("create commit") from err
    if found is not None and branch.repo.type != "spec" and _is_output(txn, found["pk"]):
        raise PachError(f"cannot start a commit on an output branch: {branch}")
    if found is None:
        txn.db.execute(
            "INSERT INTO branches (repo_pk, name, created, updated) VALUES (?,?,?,?)",
            (repo["pk"], branch.name, txn.now, txn.now),
        )
        found = refs.find_branch(txn, branch)
        owners.branch_created(txn, found["pk"])
    propagate.move_head(txn, found["pk"], pk)
    return Commit(branch.repo, propagate.commit_set_id(txn))


def _parent_pk(txn: Snapshot, branch: Branch, parent: Commit | pfs_pb2.Commit) -> int:
    message = parent
    if isinstance(message, Commit):
        message = pfs_pb2.Commit(repo=refs.repo_pb(message.repo), id=message.id)
    try:
        above = refs.resolve_commit(txn, message)
    except PachError as err:
        raise err.wrapped("parent commit not found") from err
    if above.repo != branch.repo:
        raise PachError(f"parent commit {above.key} is in another repo than {branch}")
    return above.pk


def _is_output(txn: Snapshot, branch_pk: int) -> bool:
    """Whether a branch depends on more than a spec: its commits are made by propagation."""
    rows = txn.db.execute(
        "SELECT r.type FROM branch_provenance p JOIN branches b ON b.pk=p.source_pk JOIN repos r ON r.pk=b.repo_pk "
        "WHERE p.branch_pk=?",
        (branch_pk,),
    ).fetchall()
    return any(row["type"] != "spec" for row in rows)


def finish_commit(
    txn: Txn,
    commit: Commit | pfs_pb2.Commit,
    description: str = "",
    error: str = "",
    force: bool = False,
    made: filesets.Ahead | None = None,
) -> None:
    """Finish a commit: at once if its parent is finished, else as soon as that is.

    error: why it failed; its files stay readable, its children do not build on it. force: finish a pipeline's commit
    too. made: its tree, where that was made ahead.
    Raises NotFound, PachError if it has been finished, or filesets.Large as told there.
    """
    if isinstance(commit, Commit):
        row = refs.resolve_commit(txn, (commit.repo, commit.id))
    else:
        try:
            row = refs.resolve_commit(txn, commit)
        except PachError as err:
            raise err.wrapped("finish commit in transaction") from err
    if row.state >= pfs_pb2.FINISHING:
        raise PachError(f"commit {row.key} has already finished")
    if not force and _is_jobs(txn, row):
        raise PachError("cannot finish a pipeline output or meta commit, use 'stop job' instead")
    txn.db.execute(
        "UPDATE commits SET state=?, finishing=?, updated=?, error=?, description=coalesce(nullif(?, ''), description) "
        "WHERE pk=?",
        (pfs_pb2.FINISHING, txn.now, txn.now, error, description, row.pk),
    )
    _complete(txn, row.pk, made)


def _is_jobs(txn: Snapshot, row: refs.CommitRow) -> bool:
    """Whether a commit is one that a pipeline's job writes: it was made of others, which those of users are not.

    The code of spouts and services may finish their own.
    """
    if not txn.db.execute("SELECT 1 FROM commit_provenance WHERE commit_pk=?", (row.pk,)).fetchone():
        return False
    has_jobs = hooks.of(txn).has_jobs
    return has_jobs is not None and has_jobs(txn, row.repo)


def _complete(txn: Txn, pk: int, made: filesets.Ahead | None) -> None:
    """Finish a finishing commit if its parent is finished, then the children that waited for it."""
    todo = [pk]
    while todo:
        row = refs.commit_row(txn, todo.pop())
        above = refs.parent(txn, row)
        if row.state != pfs_pb2.FINISHING or (above is not None and above.state != pfs_pb2.FINISHED):
            continue
        done = filesets.finish(txn, row, made if row.pk == pk else None)
        txn.db.execute(
            "UPDATE commits SET state=?, finished=?, updated=?, root=?, size=?, error=? WHERE pk=?",
            (
                pfs_pb2.FINISHED,
                txn.now,
                txn.now,
                done.root,
                None if row.error else done.size,
                row.error or done.error,
                row.pk,
            ),
        )
        finished = refs.commit_row(txn, row.pk)
        for hook in on_finished:
            hook(txn, finished)
        waiting = txn.db.execute(
            "SELECT pk FROM commits WHERE parent_pk=? AND state=?", (row.pk, pfs_pb2.FINISHING)
        ).fetchall()
        todo += [child["pk"] for child in waiting]


def forget_commit(txn: Txn, row: refs.CommitRow) -> None:
    """Drop the files of a commit that was made from others and is no head; what is built on it keeps its own.

    Raises PachError if it may not be forgotten.
    """
    if txn.db.execute("SELECT 1 FROM commits WHERE parent_pk=? AND finished IS NULL", (row.pk,)).fetchone():
        raise PachError("direct descendants must be closed")
    if not txn.db.execute("SELECT 1 FROM commit_provenance WHERE commit_pk=?", (row.pk,)).fetchone():
        raise PachError("the commit to be forgotten must be in an output repo")
    whole = row.state == pfs_pb2.FINISHED and not row.error
    if whole and txn.db.execute("SELECT 1 FROM branches WHERE head_pk=?", (row.pk,)).fetchone():
        raise PachError(branches.FORGOTTEN_HEAD)
    filesets.clear(txn, row)
    if row.state == pfs_pb2.FINISHED:
        txn.db.execute("UPDATE commits SET root=NULL WHERE pk=?", (row.pk,))
        if whole:
            txn.db.execute("INSERT OR IGNORE INTO forgotten (commit_pk) VALUES (?)", (row.pk,))


def clear_commit(txn: Txn, commit: pfs_pb2.Commit) -> None:
    """Forget what was written into an open commit. Raises NotFound, or PachError if it is not open."""
    row = refs.resolve_commit(txn, commit)
    if row.state >= pfs_pb2.FINISHING:
        raise PachError("cannot clear finished commit")
    filesets.clear(txn, row)


def commit_info(txn: Snapshot, row: refs.CommitRow) -> pfs_pb2.CommitInfo:
    """Return all that is known of a commit."""
    info = pfs_pb2.CommitInfo(
        commit=refs.commit_pb(row),
        origin=pfs_pb2.CommitOrigin(kind=row.origin),  # type: ignore[arg-type]
        description=row.description,
        started=refs.timestamp(row.started),
        error=row.error,
        metadata=refs.metadata(row.metadata),
        created_by=owners.commit_author(txn, row.pk),
        created_at=refs.timestamp(row.started),
        updated_at=refs.timestamp(row.updated),
    )
    info.details.SetInParent()
    above = refs.parent(txn, row)
    if above is not None:
        info.parent_commit.CopyFrom(refs.commit_pb(above))
    for child in refs.commit_rows(txn, "c.parent_pk=? ORDER BY c.pk", (row.pk,)):
        info.child_commits.append(refs.commit_pb(child))
    for source in refs.commit_rows(
        txn, "c.pk IN (SELECT source_pk FROM commit_provenance WHERE commit_pk=?) ORDER BY c.pk", (row.pk,)
    ):
        info.direct_provenance.append(refs.commit_pb(source))
    for below in refs.commit_rows(
        txn, "c.pk IN (SELECT commit_pk FROM commit_provenance WHERE source_pk=?) ORDER BY c.pk", (row.pk,)
    ):
        info.direct_subvenance.append(refs.commit_pb(below))
    if row.finishing is not None:
        info.finishing.CopyFrom(refs.timestamp(row.finishing))
    if row.finished is not None:
        info.finished.CopyFrom(refs.timestamp(row.finished))
        if row.size is not None:
            info.details.size_bytes = row.size
            if row.origin != pfs_pb2.AUTO or row.started != row.finished:  # an empty head is made finished
                info.details.compacting_time.SetInParent()
                info.details.validating_time.SetInParent()
    return info


def list_commits(txn: Snapshot, request: pfs_pb2.ListCommitRequest) -> Iterator[pfs_pb2.CommitInfo]:
    """Yield the commits of a repo (of all, if its name is empty), newest first: all, or the ancestors of `to` down to
    the one whose ID `from` has, which is left out.

    `from` given as a branch must be there and ends nothing, as in Pachyderm. Raises NotFound or PachError.
    """
    repo = refs.repo_of(request.repo)
    start, to = (getattr(request, name) if request.HasField(name) else None for name in ("from", "to"))
    if any(each is not None and refs.repo_of(each.repo) != repo for each in (start, to)):
        raise PachError(f"`from` and `to` commits need to be from repo {repo}")
    repo_pk = None
    if repo.name:
        try:
            repo_pk = refs.repo_row(txn, repo)["pk"]
        except PachError as err:
            raise err.wrapped("ensure repo exists") from err
    if start is not None:
        refs.resolve_commit(txn, start)
    last = refs.resolve_commit(txn, to) if to is not None else None
    if start is not None and last is None:
        raise PachError("cannot use `from` commit without `to` commit")
    if last is not None and request.reverse:
        raise PachError("cannot use 'Reverse' while also using 'From' or 'To'")
    if last is not None:
        rows = _line(txn, last, start.id if start is not None else "")
    else:
        rows = _of_repo(txn, repo_pk, request)
    limit = request.number if request.number > 0 else -1
    for row in rows:
        if limit == 0:
            return
        if not request.all and request.origin_kind and row.origin != request.origin_kind:
            continue
        info = commit_info(txn, row)
        info.size_bytes_upper_bound = _upper_bound(txn, row)  # here, and only here, as in Pachyderm
        yield info
        limit -= 1


def _upper_bound(txn: Snapshot, row: refs.CommitRow) -> int:
    """Return how many bytes a commit may hold at most."""
    if row.state != pfs_pb2.FINISHED:
        return filesets.size_upper_bound(txn, row)
    if row.size is None and row.root is not None:  # it failed
        return filesets.tree_of(txn, row).total().size
    return row.size or 0


def _line(txn: Snapshot, row: refs.CommitRow, stop: str) -> Iterator[refs.CommitRow]:
    current: refs.CommitRow | None = row
    while current is not None and current.id != stop:
        yield current
        current = refs.parent(txn, current)


def _of_repo(txn: Snapshot, repo_pk: int | None, request: pfs_pb2.ListCommitRequest) -> Iterator[refs.CommitRow]:
    order, compare = ("ASC", ">") if request.reverse else ("DESC", "<")
    where, values = ["repo_pk=?" if repo_pk is not None else "?=0"], [repo_pk or 0]
    if request.HasField("started_time"):
        where.append(f"started {compare} ?")
        values.append(min(request.started_time.ToNanoseconds(), 2**63 - 1))
    together = (
        "started, pk DESC" if request.reverse and repo_pk is None else f"pk {order}"
    )  # one transaction's: the newest always first
    found = txn.db.execute(f"SELECT pk FROM commits WHERE {' AND '.join(where)} ORDER BY {together}", values)
    return (refs.commit_row(txn, row["pk"]) for row in found.fetchall())


def commits_after(txn: Snapshot, repo: Repo, last: int) -> list[tuple[int, pfs_pb2.CommitInfo]]:
    """Return (number, commit) of a repo's commits with a number above `last`, oldest first. Raises NotFound."""
    try:
        pk = refs.repo_row(txn, repo)["pk"]
    except NotFound as err:
        raise NotFound(f"get repo ID: {refs.missing_repo(txn, repo)}") from err
    except PachError as err:
        raise err.wrapped("get repo ID") from err
    rows = refs.commit_rows(txn, "c.repo_pk=? AND c.pk>? ORDER BY c.pk LIMIT 1000", (pk, last))
    return [(row.pk, commit_info(txn, row)) for row in rows]
