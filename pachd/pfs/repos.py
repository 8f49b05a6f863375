"""Repos: user repos, and the spec and meta repos that belong to a pipeline's."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from pachd.auth import owners
from pachd.errors import AlreadyExists, NotFound, PachError
from pachd.pfs import branches, hooks, refs, triggers
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Repo

RESERVED = "__filesets__"  # file sets are read as commits of it
_PIPELINES = "cannot delete a repo associated with a pipeline - delete the pipeline instead"


def create_repo(txn: Txn, repo: Repo, description: str = "", update: bool = False) -> None:
    """Make a repo, or with `update` change its description; the type defaults to `user`.

    Raises AlreadyExists, NotFound (its project), PachError.
    """
    repo = repo if repo.type else repo._replace(type="user")
    if repo.name == RESERVED:
        raise PachError(f"{RESERVED} is a reserved name")
    refs.check_name(repo.name)
    if not txn.db.execute("SELECT 1 FROM projects WHERE name=?", (repo.project,)).fetchone():
        raise NotFound(f'cannot find project "{repo.project}": get project by name: project "{repo.project}" not found')
    try:
        found = refs.repo_row(txn, repo)
    except NotFound:
        if repo.type != "user" and not _exists(txn, repo._replace(type="user")):
            raise NotFound(
                "cannot create a system repo without a corresponding 'user' repo: "
                f"repo (id=0, project={repo.project}, name={repo.name}, type=user) not found"
            ) from None
        txn.db.execute(
            "INSERT INTO repos (project, name, type, description, created) VALUES (?,?,?,?,?)",
            (*repo, description, txn.now),
        )
        owners.repo_created(txn, repo)
        return
    except PachError as err:
        raise err.wrapped(f'error checking whether repo "{repo}" exists') from err
    if not update:
        raise AlreadyExists(f"repo {repo} already exists")
    txn.db.execute("UPDATE repos SET description=? WHERE pk=?", (description, found["pk"]))


def _info(txn: Snapshot, row: Any, details: bool) -> pfs_pb2.RepoInfo:
    repo = Repo(row["project"], row["name"], row["type"])
    info = pfs_pb2.RepoInfo(
        repo=refs.repo_pb(repo),
        created=refs.timestamp(row["created"]),
        description=row["description"],
        metadata=refs.metadata(row["metadata"]),
    )
    size = 0
    for branch in txn.db.execute("SELECT name, head_pk FROM branches WHERE repo_pk=? ORDER BY pk", (row["pk"],)):
        info.branches.append(refs.branch_pb(Branch(repo, branch["name"])))
        if branch["name"] == "master" and branch["head_pk"] is not None:
            size = _size(txn, branch["head_pk"])
    if details:
        info.details.size_bytes = size
    else:
        info.size_bytes_upper_bound = size
    return info


def _size(txn: Snapshot, pk: int | None) -> int:
    """The bytes of a commit; of an open or failed one what its nearest finished ancestor has."""
    while pk is not None:
        row = refs.commit_row(txn, pk)
        if row.size is not None:
            return row.size
        pk = row.parent_pk
    return 0


def inspect_repo(txn: Snapshot, repo: Repo) -> pfs_pb2.RepoInfo:
    """Return a repo with its details. Raises NotFound."""
    return _info(txn, refs.repo_row(txn, repo), details=True)


def list_repos(txn: Snapshot, type: str = "", projects: Iterable[str] = ()) -> list[pfs_pb2.RepoInfo]:
    """Return the repos of a type ("": all types) in the given projects (none: all), by project and name."""
    if type:
        try:
            refs.check_type(type)
        except PachError as err:
            raise err.wrapped("for each repo: for each repo: getting page") from err
    wanted = set(projects)
    rows = txn.db.execute("SELECT * FROM repos ORDER BY project, name, pk").fetchall()
    return [
        _info(txn, row, details=False)
        for row in rows
        if (not type or row["type"] == type) and (not wanted or row["project"] in wanted)
    ]


def delete_repo(txn: Txn, repo: Repo, force: bool = False) -> bool:
    """Delete a repo with its meta and spec repos; returns whether there was one.

    Raises PachError if it belongs to a pipeline, or, unless `force`, if another branch has it in its provenance.
    """
    try:
        if not _exists(txn, repo):
            return False
    except PachError as err:
        raise err.wrapped(f'error checking whether "{repo}" exists') from err
    if repo.type == "user":
        refuse_pipelines(txn, repo)
    _drop_together(txn, [repo] if repo.type != "user" else [repo._replace(type=t) for t in refs.TYPES], force)
    return True


def refuse_pipelines(txn: Snapshot, repo: Repo) -> None:
    """Raise PachError if a repo, of whatever type, belongs to a pipeline."""
    if _is_pipelines(txn, repo):
        raise PachError(f'error checking whether repo "{repo}" can be deleted: {_PIPELINES}')


def delete_repos(
    txn: Txn, projects: Collection[str] | None, force: bool = False, may: Callable[[Repo], bool] = bool
) -> list[pfs_pb2.Repo]:
    """Delete the repos of some projects (None: of all) that one may delete, with their meta and spec repos; returns
    which.

    Raises PachError if one of them is a pipeline's or, unless `force`, in the provenance of another repo's branch.
    """
    done = []
    rows = txn.db.execute("SELECT project, name, type FROM repos ORDER BY project, name, pk").fetchall()
    for row in rows:
        repo = Repo(row["project"], row["name"], row["type"])
        if projects is not None and repo.project not in projects:
            continue
        if not may(repo._replace(type="user")):
            continue
        if _is_pipelines(txn, repo):
            raise PachError(_PIPELINES)
        done.append(repo)
    _drop_together(txn, done, force)
    return [refs.repo_pb(repo) for repo in done]


def _drop_together(txn: Txn, own: Collection[Repo], force: bool) -> None:
    """Drop repos. Raises PachError if others depend on one of them and not `force`."""
    if not force:
        together = set(own)
        for each in own:
            _refuse_downstream(txn, each, together)
    for each in own:
        drop(txn, each)


def _is_pipelines(txn: Snapshot, repo: Repo) -> bool:
    has_pipeline = hooks.of(txn).has_pipeline
    return has_pipeline is not None and has_pipeline(txn, repo)


def _exists(txn: Snapshot, repo: Repo) -> bool:
    try:
        refs.repo_row(txn, repo)
    except NotFound:
        return False
    return True


def _refuse_downstream(txn: Snapshot, repo: Repo, own: Collection[Repo]) -> None:
    if not _exists(txn, repo):
        return
    pk = refs.repo_row(txn, repo)["pk"]
    for row in txn.db.execute("SELECT pk, name FROM branches WHERE repo_pk=? ORDER BY pk", (pk,)).fetchall():
        below = [b for b in branches.direct_subvenance(txn, row["pk"]) if b.repo not in own]
        if below:
            error = branches.in_provenance(Branch(repo, row["name"]), below)
            raise PachError(f"delete branch {repo}@{row['name']}: {error}")
        try:
            triggers.refuse_connected(txn, Branch(repo, row["name"]))
        except PachError as err:
            raise err.wrapped(f"delete branch {repo}@{row['name']}") from err


def drop(txn: Txn, repo: Repo) -> None:
    """Delete a repo's rows, whatever depends on them; a missing repo is no error."""
    if not _exists(txn, repo):
        return
    pk = refs.repo_row(txn, repo)["pk"]
    txn.db.execute("DELETE FROM change WHERE commit_pk IN (SELECT pk FROM commits WHERE repo_pk=?)", (pk,))
    txn.db.execute("DELETE FROM branches WHERE repo_pk=?", (pk,))
    txn.db.execute("DELETE FROM commits WHERE repo_pk=?", (pk,))
    txn.db.execute("DELETE FROM repos WHERE pk=?", (pk,))
    owners.repo_deleted(txn, repo)
