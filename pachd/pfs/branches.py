"""Branches: names for heads, and the provenance between them that makes commits propagate."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from pachd.auth import owners
from pachd.errors import Internal, NotFound, PachError
from pachd.pfs import hooks, propagate, refs, triggers
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Commit, Repo

_SUBVENANCE = """WITH RECURSIVE down (pk) AS (SELECT branch_pk FROM branch_provenance WHERE source_pk=? UNION
    SELECT p.branch_pk FROM branch_provenance p JOIN down ON p.source_pk = down.pk) SELECT pk FROM down"""
FORGOTTEN_HEAD = "list branch in transaction: for each branch: the branch head cannot be a forgotten commit"
_PROVENANCE = """WITH RECURSIVE up (pk) AS (SELECT source_pk FROM branch_provenance WHERE branch_pk=? UNION
    SELECT p.source_pk FROM branch_provenance p JOIN up ON p.branch_pk = up.pk) SELECT pk FROM up"""


def create_branch(
    txn: Txn,
    branch: Branch,
    head: Commit | pfs_pb2.Commit | None = None,
    provenance: Sequence[Branch] = (),
    trigger: pfs_pb2.Trigger | None = None,
    never: Collection[Branch] = (),
) -> None:
    """Make a branch, or give an existing one another head, provenance or trigger.

    Without a head a new branch gets an empty AUTO commit: finished if it has no provenance, open if it has. Missing
    branches in the provenance are made the same way. Without a trigger an existing one stays. never: sources whose new
    commits shall make none here. Raises NotFound, PachError, or Internal for a cycle.
    """
    if head is not None:
        _check_repo(branch, head)
    if trigger is not None:
        triggers.check(txn, branch, trigger)
        if provenance:
            raise PachError("a branch cannot have both provenance and a trigger")
    for each in never:
        if each not in provenance:
            raise PachError(
                f"branch propagation spec must reference provenant branch (referenced branch: {_dotted(each)})"
            )
    for each in (*provenance, branch):
        refs.check_name(each.name)
    sources = [_ensure(txn, source) for source in provenance]
    target = _head(txn, branch, head) if head is not None else None
    for source in provenance:
        if source.repo == branch.repo:
            raise PachError(f"repo {branch.repo} cannot be in the provenance of its own branch")
    try:
        found = refs.find_branch(txn, branch)
    except PachError as err:
        raise err.wrapped("create branch") from err
    repo_pk = _required_repo_pk(txn, branch.repo)
    old_head: int | None = found["head_pk"] if found is not None else None
    new_head = old_head if target is None else target.pk
    old_sources = [] if found is None else [row["source_pk"] for row in _sources(txn, found["pk"])]
    changed = len(sources) != len(old_sources) or not set(sources) <= set(old_sources)
    made = None
    if new_head is None or (changed and sources):
        made = propagate.make_auto(txn, repo_pk, branch.name, sources, new_head)
    if refs.is_id(branch.name):
        raise PachError("create branch: update head: branch name cannot be a UUID V4")
    pk = _insert(txn, repo_pk, branch.name) if found is None else found["pk"]
    _refuse_cycle(txn, branch, pk, list(zip(sources, provenance, strict=True)))
    txn.db.execute("DELETE FROM branch_provenance WHERE branch_pk=?", (pk,))
    txn.db.executemany(
        "INSERT OR IGNORE INTO branch_provenance (branch_pk, source_pk, position, never) VALUES (?,?,?,?)",
        [(pk, s, i, provenance[i] in never) for i, s in enumerate(sources)],
    )
    txn.db.execute("UPDATE branches SET updated=? WHERE pk=?", (txn.now, pk))
    if trigger is not None:
        triggers.connect(txn, branch, pk, trigger)
    if made is not None or target is not None:
        propagate.move_head(txn, pk, new_head if made is None else made)
    if made is not None and sources:
        propagate.connected(txn, pk)
    _refuse_forgotten(txn, repo_pk)


def _required_repo_pk(txn: Txn, repo: Repo) -> int:
    try:
        return _repo_pk(txn, repo)
    except NotFound as err:
        raise NotFound(
            f"get commit by commit key: {refs.missing_repo(txn, repo)}\ncommit (int_id=0, commit_id="
            f"{repo.project}/{repo.name}.{repo.type}@{propagate.commit_set_id(txn)}) not found"
        ) from err


def _refuse_cycle(txn: Snapshot, branch: Branch, pk: int, sources: Iterable[tuple[int, Branch]]) -> None:
    below = {row["pk"] for row in txn.db.execute(_SUBVENANCE, (pk,)).fetchall()} | {pk}
    for source_pk, source in sources:
        if source_pk in below:
            raise Internal(
                "create branch: update head: cycle detected because "
                f"{_dotted(source)} is already in the subvenance of {_dotted(branch)}"
            )


def _refuse_forgotten(txn: Snapshot, repo_pk: int) -> None:
    if txn.db.execute(
        "SELECT 1 FROM branches b JOIN forgotten f ON f.commit_pk = b.head_pk WHERE b.repo_pk=?", (repo_pk,)
    ).fetchone():
        raise PachError(FORGOTTEN_HEAD)


def _dotted(branch: Branch) -> str:
    return f"{branch.repo.project}/{branch.repo.name}.{branch.repo.type}@{branch.name}"


def _repo_pk(txn: Snapshot, repo: Repo) -> int:
    pk: int = refs.repo_row(txn, repo)["pk"]
    return pk


def _exists(txn: Snapshot, repo: Repo) -> bool:
    try:
        refs.repo_row(txn, repo)
    except NotFound:
        return False
    return True


def _insert(txn: Txn, repo_pk: int, name: str) -> int:
    cursor = txn.db.execute(
        "INSERT INTO branches (repo_pk, name, created, updated) VALUES (?,?,?,?)", (repo_pk, name, txn.now, txn.now)
    )
    assert cursor.lastrowid is not None
    owners.branch_created(txn, cursor.lastrowid)
    return cursor.lastrowid


def _ensure(txn: Txn, branch: Branch) -> int:
    """The number of a branch, made with an empty head if it is not there."""
    try:
        found = refs.find_branch(txn, branch)
    except PachError as err:
        raise err.wrapped("get branch info") from err
    if found is None:
        try:
            create_branch(txn, branch)
        except NotFound as err:
            raise err.wrapped("create empty commit") from err
        found = refs.find_branch(txn, branch)
    pk: int = found["pk"]
    return pk


def _head(txn: Snapshot, branch: Branch, head: Commit | pfs_pb2.Commit) -> refs.CommitRow:
    message = head
    if isinstance(message, Commit):
        message = pfs_pb2.Commit(repo=refs.repo_pb(message.repo), id=message.id)
    try:
        return refs.resolve_commit(txn, message)
    except PachError as err:
        id, name = message.id, message.branch.name
        told = name + id if id[:1] in ("", "^", "~", ".") and name else id
        raise err.wrapped(f"unable to inspect {branch.repo}@{told}") from err


def _check_repo(branch: Branch, head: Commit | pfs_pb2.Commit) -> None:
    repo = (
        head.repo
        if isinstance(head, Commit)
        else refs.repo_of(head.repo if head.HasField("repo") else head.branch.repo)
    )
    if repo.name and repo not in (branch.repo, branch.repo._replace(type="")):
        raise PachError("branch and head commit must belong to the same repo")


def _sources(txn: Snapshot, pk: int) -> list[dict[str, int]]:
    return txn.db.execute(
        "SELECT source_pk, never FROM branch_provenance WHERE branch_pk=? ORDER BY position", (pk,)
    ).fetchall()


def direct_subvenance(txn: Snapshot, pk: int) -> list[Branch]:
    """Return the branches that have branch number `pk` in their direct provenance."""
    rows = txn.db.execute("SELECT branch_pk FROM branch_provenance WHERE source_pk=? ORDER BY branch_pk", (pk,))
    return [refs.branch_of(txn, row["branch_pk"]) for row in rows.fetchall()]


def in_provenance(branch: Branch, below: Iterable[Branch]) -> str:
    """Return the sentence that says why a branch cannot go."""
    names = " ".join(str(b) for b in below)
    return f'branch "{branch}" cannot be deleted because it\'s in the direct provenance of [{names}]'


def _info(txn: Snapshot, pk: int) -> pfs_pb2.BranchInfo:
    row = txn.db.execute("SELECT * FROM branches WHERE pk=?", (pk,)).fetchone()
    branch = refs.branch_of(txn, pk)
    info = pfs_pb2.BranchInfo(
        branch=refs.branch_pb(branch),
        metadata=refs.metadata(row["metadata"]),
        created_by=owners.branch_author(txn, pk),
        created_at=refs.timestamp(row["created"]),
        updated_at=refs.timestamp(row["updated"]),
    )
    if row["head_pk"] is not None:
        head = refs.commit_pb(refs.commit_row(txn, row["head_pk"]))
        head.branch.CopyFrom(info.branch)
        info.head.CopyFrom(head)
    for source in _sources(txn, pk):
        message = refs.branch_pb(refs.branch_of(txn, source["source_pk"]))
        info.direct_provenance.append(message)
        if source["never"]:
            spec = info.branch_propagation_specs.add(branch=message)
            spec.propagation_spec.never = True
    for above in txn.db.execute(_PROVENANCE, (pk,)).fetchall():
        info.provenance.append(refs.branch_pb(refs.branch_of(txn, above["pk"])))
    for below in txn.db.execute(_SUBVENANCE, (pk,)).fetchall():
        info.subvenance.append(refs.branch_pb(refs.branch_of(txn, below["pk"])))
    if row["trigger"] is not None:
        info.trigger.ParseFromString(row["trigger"])
    return info


def inspect_branch(txn: Snapshot, branch: Branch) -> pfs_pb2.BranchInfo:
    """Return a branch. Raises NotFound."""
    try:
        return _info(txn, refs.branch_row(txn, branch)["pk"])
    except PachError as err:
        raise err.wrapped("inspect branch in transaction") from err


def list_branches(txn: Snapshot, repo: Repo | None = None, reverse: bool = False) -> Iterator[pfs_pb2.BranchInfo]:
    """Yield the branches of a repo, newest first. Raises NotFound.

    repo: without a name, all repos of this project and of this type, if it has one; None: all there are, those with the
    least provenance first; in reverse, those of one transaction with the most first, as Pachyderm lists them.
    """
    order = "ASC" if reverse else "DESC"
    if repo is not None and not repo.name:
        rows = txn.db.execute(
            "SELECT b.pk FROM branches b JOIN repos r ON r.pk = b.repo_pk WHERE r.project=?1 AND (?2='' OR r.type=?2) "
            f"ORDER BY b.pk {order}",
            (repo.project, repo.type),
        ).fetchall()
    elif repo is not None:
        pk = _repo_pk(txn, repo)
        rows = txn.db.execute(f"SELECT pk FROM branches WHERE repo_pk=? ORDER BY pk {order}", (pk,)).fetchall()
    else:
        rows = txn.db.execute(f"SELECT pk, created FROM branches ORDER BY pk {order}").fetchall()
        above = {row["pk"]: len(txn.db.execute(_PROVENANCE, (row["pk"],)).fetchall()) for row in rows}
        if reverse:
            rows.sort(key=lambda row: (row["created"], -above[row["pk"]]))
        else:
            rows.sort(key=lambda row: above[row["pk"]])
    for row in rows:
        yield _info(txn, row["pk"])


def delete_branch(txn: Txn, branch: Branch, force: bool = False) -> None:
    """Delete a branch; its commits stay.

    Raises NotFound; PachError if it is the output of a pipeline, or, unless `force`, in another's direct provenance or
    connected with others by a trigger.
    """
    try:
        found = refs.find_branch(txn, branch)
    except PachError as err:
        raise err.wrapped(f'get branch "{_dotted(branch)}"') from err
    if found is None:
        told = "" if _exists(txn, branch.repo) else f"{refs.missing_repo(txn, branch.repo)}\n"
        raise NotFound(f'get branch "{_dotted(branch)}": {told}branch (id=0, branch={branch}) not found')
    pk = found["pk"]
    sources = [refs.branch_of(txn, row["source_pk"]) for row in _sources(txn, pk)]
    has_pipeline = hooks.of(txn).has_pipeline
    written = branch.repo.type != "spec" and any(source.repo.type == "spec" for source in sources)
    if written and has_pipeline is not None and has_pipeline(txn, branch.repo):
        raise PachError(
            f'branch "{branch}" cannot be deleted because a pipeline writes to it - delete the pipeline instead'
        )
    below = direct_subvenance(txn, pk)
    if below and not force:
        raise PachError(in_provenance(branch, below))
    triggers.disconnect(txn, branch, force)
    txn.db.execute("DELETE FROM branches WHERE pk=?", (pk,))
    txn.db.execute("UPDATE commits SET branch=NULL WHERE repo_pk=? AND branch=?", (found["repo_pk"], branch.name))


def _walk(
    txn: Snapshot, starts: Iterable[Branch], max_branches: int, max_depth: int, sql: str
) -> Iterator[pfs_pb2.BranchInfo]:
    for start in starts:
        for pk in refs.levels(txn, refs.branch_row(txn, start)["pk"], sql, max_branches, max_depth):
            yield _info(txn, pk)


def walk_provenance(
    txn: Snapshot, starts: Iterable[Branch], max_branches: int = 0, max_depth: int = 0
) -> Iterator[pfs_pb2.BranchInfo]:
    """Yield, for each branch of `starts`, what it depends on, level by level. Limits are for each; 0: 10,000."""
    sql = "SELECT source_pk AS pk FROM branch_provenance WHERE branch_pk=?"
    return _walk(txn, starts, max_branches, max_depth, sql)


def walk_subvenance(
    txn: Snapshot, starts: Iterable[Branch], max_branches: int = 0, max_depth: int = 0
) -> Iterator[pfs_pb2.BranchInfo]:
    """Yield, for each branch of `starts`, what depends on it, level by level. Limits are for each; 0: 10,000."""
    sql = "SELECT branch_pk AS pk FROM branch_provenance WHERE source_pk=?"
    return _walk(txn, starts, max_branches, max_depth, sql)
