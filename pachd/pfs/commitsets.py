"""Commit sets: the commits that one transaction made; removing commits from history."""

from collections.abc import Iterable, Iterator

from pachd.errors import NotFound, PachError
from pachd.pfs import commits, filesets, propagate, refs
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn


def inspect_commit_set(txn: Snapshot, id: str) -> Iterator[pfs_pb2.CommitInfo]:
    """Yield the commits of a set and those of other sets in their provenance, upstream first; all commits there are
    for an empty ID, as in Pachyderm. Raises NotFound."""
    found = txn.db.execute(
        "SELECT pk FROM commits WHERE ?='' ORDER BY pk"
        if not id
        else "WITH RECURSIVE up (pk) AS (SELECT pk FROM commits WHERE id=? UNION "
        "SELECT p.source_pk FROM commit_provenance p JOIN up ON p.commit_pk = up.pk) SELECT pk FROM up ORDER BY pk",
        (id,),
    ).fetchall()
    if not found:
        raise NotFound(f"no commits found for commitset {id}")
    for row in found:
        yield commits.commit_info(txn, refs.commit_row(txn, row["pk"]))


def list_commit_sets(txn: Snapshot, project: str | None = None) -> Iterator[pfs_pb2.CommitSetInfo]:
    """Yield the commit sets with what they depend on, newest first; with `project` only those with a commit in it."""
    where, values = ("", ()) if project is None else ("WHERE r.project=?", (project,))
    found = txn.db.execute(
        f"SELECT c.id FROM commits c JOIN repos r ON r.pk=c.repo_pk {where} GROUP BY c.id ORDER BY max(c.pk) DESC",
        values,
    ).fetchall()
    for row in found:
        yield pfs_pb2.CommitSetInfo(
            commit_set=pfs_pb2.CommitSet(id=row["id"]), commits=inspect_commit_set(txn, row["id"])
        )


def squash_commit_set(txn: Txn, id: str) -> None:
    """Remove the commits of a set from history; their children keep the files. A set without commits: nothing. An empty
    ID means all commits, of which some have no children.

    Raises PachError if a commit has no finished child, updated a pipeline, or another set depends on it.
    """
    members = _members(txn, id)
    _squash(txn, members)


def drop_commit_set(txn: Txn, id: str) -> None:
    """Remove the commits of a set with what they brought. A set without commits: nothing.

    Raises PachError if a commit has children or updated a pipeline, or another set depends on it.
    """
    members = _members(txn, id)
    if members and not id:
        _refuse_parents(txn, members)
        raise PachError("a commit set without an ID is all commits: drop them set by set, or delete the repos")
    _drop(txn, members)


def _members(txn: Snapshot, id: str) -> list[refs.CommitRow]:
    """The commits of a set that nothing else depends on; all commits for an empty ID. Raises PachError."""
    if not id:
        return refs.commit_rows(txn, "1 ORDER BY c.pk")
    members = refs.commit_rows(txn, "c.id=? ORDER BY c.pk", (id,))
    _refuse_dependents(txn, id, members)
    return members


def squash_commit(txn: Txn, row: refs.CommitRow, recursive: bool = False) -> None:
    """Remove one commit from history, with `recursive` also all that depends on it. Raises PachError as for a set."""
    members = [row, *_subvenant(txn, row)]
    if len(members) > 1 and not recursive:
        raise PachError(f"cannot squash commit ({row.key}) with subvenance without recursive")
    _squash(txn, members)


def drop_commit(txn: Txn, row: refs.CommitRow, recursive: bool = False) -> None:
    """Remove one commit with what it brought, with `recursive` also all that depends on it."""
    members = [row, *_subvenant(txn, row)]
    if len(members) > 1 and not recursive:
        raise PachError(f"cannot drop commit ({row.key}) with subvenance without recursive")
    _drop(txn, members)


def _subvenant(txn: Snapshot, row: refs.CommitRow) -> list[refs.CommitRow]:
    """Everything that depends on a commit, upstream first."""
    return refs.commit_rows(
        txn,
        "c.pk IN (WITH RECURSIVE down (pk) AS (SELECT commit_pk FROM commit_provenance WHERE source_pk=? UNION "
        "SELECT p.commit_pk FROM commit_provenance p JOIN down ON p.source_pk = down.pk) SELECT pk FROM down) "
        "ORDER BY c.pk",
        (row.pk,),
    )


def _refuse_dependents(txn: Snapshot, id: str, members: list[refs.CommitRow]) -> None:
    others = {below.id: None for row in members for below in _subvenant(txn, row) if below.id != id}
    if others:
        names = " ".join(f'id:"{other}"' for other in others)
        raise PachError(f'commit set "id:\\"{id}\\"" cannot be dropped because it has subvenant commit sets: [{names}]')


def _refuse_update(row: refs.CommitRow) -> None:
    if row.repo.type == "spec" and row.origin == pfs_pb2.USER:
        raise PachError(f"cannot squash commit {row.key} because it updated a pipeline")


def _squash(txn: Txn, members: list[refs.CommitRow]) -> None:
    for row in members:
        _refuse_update(row)
        if not refs.commit_rows(txn, "c.parent_pk=?", (row.pk,)):
            raise PachError(
                "cannot squash a commit that has no children as that would cause data loss, use the drop operation "
                f"instead: {row.key}"
            )
    for row in members:
        for child in refs.commit_rows(txn, "c.parent_pk=? ORDER BY c.pk", (row.pk,)):
            if child.state != pfs_pb2.FINISHED:
                hint = ", consider using WaitCommit" if child.finishing else ""
                raise PachError(f"cannot squash until child commit {child.key} is finished{hint}")
    _remove(txn, members)


def _drop(txn: Txn, members: list[refs.CommitRow]) -> None:
    _refuse_parents(txn, members)
    _remove(txn, members)


def _refuse_parents(txn: Snapshot, members: list[refs.CommitRow]) -> None:
    for row in members:
        _refuse_update(row)
        if refs.commit_rows(txn, "c.parent_pk=?", (row.pk,)):
            raise PachError(f"cannot drop a commit that has children: {row.key}")


def _remove(txn: Txn, members: Iterable[refs.CommitRow]) -> None:
    """Delete commits: children move to the parent, heads too, or all those of a repo to one new empty commit.

    That is open if its branch is made from others, and on their heads as they are when all of `members` are gone. What
    depends on the branch goes its own way: removing a commit makes no new ones downstream.
    """
    for pk in [row.pk for row in members]:
        row = refs.commit_row(txn, pk)
        txn.db.execute("UPDATE branches SET head_pk=?, updated=? WHERE head_pk=?", (row.parent_pk, txn.now, row.pk))
        txn.db.execute("UPDATE commits SET parent_pk=? WHERE parent_pk=?", (row.parent_pk, row.pk))
        filesets.clear(txn, row)
        txn.db.execute("DELETE FROM commits WHERE pk=?", (row.pk,))
    headless = txn.db.execute(
        "SELECT min(pk) AS pk, repo_pk FROM branches WHERE head_pk IS NULL GROUP BY repo_pk"
    ).fetchall()
    repos = {row["pk"]: row["repo_pk"] for row in headless}
    for pk in propagate.upstream_first(txn, repos):
        txn.db.execute(
            "UPDATE branches SET head_pk=?, updated=? WHERE repo_pk=? AND head_pk IS NULL",
            (propagate.make_empty(txn, pk), txn.now, repos[pk]),
        )


def walk_provenance(
    txn: Snapshot, starts: Iterable[refs.CommitRow], max_commits: int = 0, max_depth: int = 0
) -> Iterator[pfs_pb2.CommitInfo]:
    """Yield, for each commit of `starts`, what it was made from, level by level. Limits are for each; 0: 10,000."""
    sql = "SELECT source_pk AS pk FROM commit_provenance WHERE commit_pk=?"
    return _walk(txn, starts, max_commits, max_depth, sql)


def walk_subvenance(
    txn: Snapshot, starts: Iterable[refs.CommitRow], max_commits: int = 0, max_depth: int = 0
) -> Iterator[pfs_pb2.CommitInfo]:
    """Yield, for each commit of `starts`, what was made from it, level by level. Limits are for each; 0: 10,000."""
    sql = "SELECT commit_pk AS pk FROM commit_provenance WHERE source_pk=?"
    return _walk(txn, starts, max_commits, max_depth, sql)


def _walk(
    txn: Snapshot, starts: Iterable[refs.CommitRow], limit: int, depth: int, sql: str
) -> Iterator[pfs_pb2.CommitInfo]:
    for start in starts:
        for pk in refs.levels(txn, start.pk, sql, limit, depth):
            yield commits.commit_info(txn, refs.commit_row(txn, pk))
