"""From references to rows: repos, branches, and commits with ancestry (`^`, `~`, `.N`) and alias resolution."""

import re
import sqlite3
from dataclasses import dataclass
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pfs.names import is_id
from pachd.proto import pfs_pb2
from pachd.store import Snapshot
from pachd.types import Branch, Commit, Repo

__all__ = [
    "BranchRow",
    "CommitRow",
    "branch_key",
    "branch_pb",
    "branch_row",
    "commit_by_pk",
    "commit_pb",
    "find_commit",
    "is_id",
    "parent",
    "pick_branch",
    "pick_commit",
    "pick_repo",
    "repo_key",
    "repo_pb",
    "repo_row",
    "resolve_commit",
]

_REFERENCE = re.compile(r"([^.^~]*)(?:\.(\d+))?(?:(\^+|~+)|[\^~](\d+))?\Z")

_COMMIT = (
    "SELECT c.*, r.project, r.name AS repo, r.type, b.name AS branch FROM commits c JOIN repos r ON r.pk = c.repo_pk "
    "LEFT JOIN branches b ON b.pk = c.branch_pk "
)
_BRANCH = "SELECT b.*, r.project, r.name AS repo, r.type FROM branches b JOIN repos r ON r.pk = b.repo_pk "


@dataclass(frozen=True, slots=True)
class CommitRow:
    """A commit as the database has it. Times are in ns, 0 for not yet; `branch` is None once its branch is deleted."""

    pk: int
    repo_pk: int
    repo: Repo
    id: str
    branch: str | None
    branch_pk: int | None
    origin: int
    description: str
    parent_pk: int | None
    state: int
    started: int
    finishing: int
    finished: int
    error: str
    compacted: bool
    size: int
    root: bytes | None
    updated: int
    metadata: str

    @property
    def key(self) -> Commit:
        """Return the commit's key."""
        return Commit(self.repo, self.id)


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch as the database has it."""

    pk: int
    repo_pk: int
    key: Branch
    head_pk: int | None
    trigger: bytes | None
    specs: bytes | None
    created: int
    updated: int
    metadata: str


def _commit_row(row: sqlite3.Row) -> CommitRow:
    return CommitRow(
        row["pk"], row["repo_pk"], Repo(row["project"], row["repo"], row["type"]), row["id"], row["branch"],
        row["branch_pk"] if row["branch"] is not None else None, row["origin"], row["description"], row["parent_pk"],
        row["state"], row["started"], row["finishing"], row["finished"], row["error"], bool(row["compacted"]), row["size"],
        row["root"], row["updated"], row["metadata"],
    )  # fmt: skip


def _branch_row(row: sqlite3.Row) -> BranchRow:
    key = Branch(Repo(row["project"], row["repo"], row["type"]), row["name"])
    return BranchRow(
        row["pk"], row["repo_pk"], key, row["head_pk"], row["trigger_pb"], row["specs"], row["created"], row["updated"],
        row["metadata"],
    )  # fmt: skip


def repo_pb(repo: Repo) -> pfs_pb2.Repo:
    """Return the message of a repo's key."""
    return pfs_pb2.Repo(name=repo.name, type=repo.type, project=pfs_pb2.Project(name=repo.project))


def branch_pb(branch: Branch) -> pfs_pb2.Branch:
    """Return the message of a branch's key."""
    return pfs_pb2.Branch(repo=repo_pb(branch.repo), name=branch.name)


def commit_pb(row: "CommitRow | Commit") -> pfs_pb2.Commit:
    """Return the message of a commit, with its branch where that is known."""
    repo = repo_pb(row.repo)
    message = pfs_pb2.Commit(repo=repo, id=row.id)
    if isinstance(row, CommitRow) and row.branch is not None:
        message.branch.CopyFrom(pfs_pb2.Branch(repo=repo, name=row.branch))
    return message


def repo_key(message: pfs_pb2.Repo) -> Repo:
    """Return the key of a repo message; the project defaults to `default`, the type to `user`."""
    return Repo(message.project.name or "default", message.name, message.type or "user")


def branch_key(message: Any, name: str | None = None) -> Branch:
    """Return the key of a branch message, or of the branch in a commit message (by `name`, where that is given)."""
    if isinstance(message, pfs_pb2.Commit):
        repo = repo_key(message.repo if message.HasField("repo") else message.branch.repo)
        return Branch(repo, message.branch.name if name is None else name)
    return Branch(repo_key(message.repo), message.name if name is None else name)


def find_repo(txn: Snapshot, repo: Repo) -> sqlite3.Row | None:
    """Return the row of a repo, or None."""
    row: sqlite3.Row | None = txn.db.execute(
        "SELECT * FROM repos WHERE project=? AND name=? AND type=?", (repo.project, repo.name, repo.type)
    ).fetchone()
    return row


def repo_missing(repo: Repo) -> str:
    """Return how the inner layers say that there is no such repo."""
    return f"repo (id=0, project={repo.project}, name={repo.name}, type={repo.type}) not found"


def repo_row(txn: Snapshot, repo: Repo) -> sqlite3.Row:
    """Return the row of a repo.

    :raises NotFound: in the words of SubscribeCommit.
    """
    row = find_repo(txn, repo)
    if row is None:
        raise NotFound(f"get repo ID: {repo_missing(repo)}")
    return row


def find_branch(txn: Snapshot, branch: Branch) -> BranchRow | None:
    """Return the row of a branch, or None."""
    row = txn.db.execute(
        _BRANCH + "WHERE r.project=? AND r.name=? AND r.type=? AND b.name=?", (*branch.repo, branch.name)
    ).fetchone()
    return None if row is None else _branch_row(row)


def branch_by_pk(txn: Snapshot, pk: int) -> BranchRow:
    """Return the row of a branch that is known to be there."""
    return _branch_row(txn.db.execute(_BRANCH + "WHERE b.pk=?", (pk,)).fetchone())


def branches_of(txn: Snapshot, repo_pk: int) -> list[BranchRow]:
    """Return the branches of a repo, oldest first."""
    return [_branch_row(r) for r in txn.db.execute(_BRANCH + "WHERE b.repo_pk=? ORDER BY b.pk", (repo_pk,))]


def branch_row(txn: Snapshot, branch: Branch) -> BranchRow:
    """Return the row of a branch.

    :raises NotFound: there is none.
    """
    row = find_branch(txn, branch)
    if row is None:
        missing = "" if find_repo(txn, branch.repo) else repo_missing(branch.repo) + "\n"
        raise NotFound(
            f"{missing}branch (id=0, branch={branch}) not found\nbranch \"{branch.name}\" not found in repo {branch.repo}"
        )
    return row


def commit_by_pk(txn: Snapshot, pk: int) -> CommitRow:
    """Return the row of a commit that is known to be there."""
    return _commit_row(txn.db.execute(_COMMIT + "WHERE c.pk=?", (pk,)).fetchone())


def find_commit(txn: Snapshot, repo_pk: int, id: str) -> CommitRow | None:
    """Return a repo's own commit of an ID, or None; no alias is resolved."""
    row = txn.db.execute(_COMMIT + "WHERE c.repo_pk=? AND c.id=?", (repo_pk, id)).fetchone()
    return None if row is None else _commit_row(row)


def commits_where(txn: Snapshot, where: str, values: tuple[Any, ...] = ()) -> list[CommitRow]:
    """Return the commits of an SQL condition (with c, r and b for commit, repo and branch), with its ORDER BY."""
    return [_commit_row(r) for r in txn.db.execute(_COMMIT + where, values)]


def parent(txn: Snapshot, row: CommitRow) -> CommitRow | None:
    """Return the parent of a commit, or None."""
    return None if row.parent_pk is None else commit_by_pk(txn, row.parent_pk)


def resolve_commit(txn: Snapshot, commit: pfs_pb2.Commit | tuple[Repo, str]) -> CommitRow:
    """Return the commit that a reference names.

    :param commit: a message (the ID, perhaps with ancestry, wins over the branch), or a repo and a reference.
    :raises NotFound: no such repo, branch or commit.
    :raises PachError: the reference is empty, or its ancestry is malformed or leads too far.
    """
    try:
        return _resolve(txn, commit)
    except PachError as error:
        raise error.wrapped("pick commit tx") from None


def _resolve(txn: Snapshot, commit: pfs_pb2.Commit | tuple[Repo, str]) -> CommitRow:
    if isinstance(commit, pfs_pb2.Commit):
        repo = repo_key(commit.repo if commit.HasField("repo") else commit.branch.repo)
        id, branch = commit.id, commit.branch.name
    else:
        repo, reference = commit
        id, branch = (reference, "") if not reference or is_id(reference) else ("", reference)
    text = id or branch
    if not text:
        raise PachError("cannot pick commit with no ID or branch")
    match = _REFERENCE.match(text)
    if match is None:
        raise PachError(f"calculate offset {repo}@{text}: count offset and clean: invalid ancestry format")
    base, root, signs, number = match.groups()
    repo_found = find_repo(txn, repo)
    if repo_found is None:
        raise NotFound(f"commit {repo}@{id} not found\nrepo {repo} not found")
    if is_id(base):
        row = find_commit(txn, repo_found["pk"], base.lower()) or _alias(txn, repo_found["pk"], base.lower())
        if row is None:
            raise NotFound(f"commit {repo}@{id} not found\ncommit {repo}@{id} not found")
    else:
        head = txn.db.execute(
            "SELECT head_pk FROM branches WHERE repo_pk=? AND name=?", (repo_found["pk"], base)
        ).fetchone()
        if head is None:
            raise NotFound(f"commit {repo}@{id} not found\nbranch \"{branch}\" not found in repo {repo}")
        row = commit_by_pk(txn, head["head_pk"])
    if root is not None:
        row = _from_root(txn, row, int(root) - 1)
    offset = len(signs) if signs else int(number or 0)
    return _ancestor(txn, row, offset) if offset else row


def _alias(txn: Snapshot, repo_pk: int, id: str) -> CommitRow | None:
    """Return this repo's commit among the provenance of the commit set `id`: what that set read of the repo."""
    found = txn.db.execute(
        "WITH RECURSIVE prov(pk) AS (SELECT p.to_pk FROM commit_provenance p JOIN commits c ON c.pk = p.from_pk "
        "WHERE c.id = ? UNION SELECT p.to_pk FROM prov JOIN commit_provenance p ON p.from_pk = prov.pk) "
        "SELECT c.pk FROM prov JOIN commits c ON c.pk = prov.pk WHERE c.repo_pk = ? ORDER BY c.pk DESC LIMIT 1",
        (id, repo_pk),
    ).fetchone()
    return None if found is None else commit_by_pk(txn, found["pk"])


_ANCESTORS = (
    "WITH RECURSIVE up(pk, parent_pk, depth) AS (SELECT pk, parent_pk, 0 FROM commits WHERE pk = ? UNION ALL "
    "SELECT c.pk, c.parent_pk, up.depth + 1 FROM up JOIN commits c ON c.pk = up.parent_pk WHERE up.depth < ?) "
)


def _ancestor(txn: Snapshot, row: CommitRow, offset: int) -> CommitRow:
    last = txn.db.execute(
        _ANCESTORS + "SELECT pk, depth FROM up ORDER BY depth DESC LIMIT 1", (row.pk, min(offset, 1 << 40))
    ).fetchone()
    if last["depth"] != offset:
        raise PachError(
            f"picking commit: invalid offset for ancestor of commit: {row.repo.key}@{row.id}, "
            f"offset requested: {offset}, offset traversable: {last['depth']}"
        )
    return commit_by_pk(txn, last["pk"])


def _from_root(txn: Snapshot, row: CommitRow, offset: int) -> CommitRow:
    chain = [r["pk"] for r in txn.db.execute(_ANCESTORS + "SELECT pk FROM up ORDER BY depth DESC", (row.pk, 1 << 40))]
    if not 0 <= offset < len(chain):
        raise PachError(
            f"picking commit: invalid offset from branch root for head commit: {row.repo.key}@{row.id}, "
            f"offset: {offset % (1 << 32)}, maximum depth: {len(chain)}"  # Pachyderm counts in 32 unsigned bits
        )
    return commit_by_pk(txn, chain[offset])


def pick_repo(txn: Snapshot, picker: pfs_pb2.RepoPicker) -> Repo:
    """Return the key of the repo that a picker picks.

    :raises NotFound: there is none.
    """
    if picker.WhichOneof("picker") != "name":
        raise PachError("repo picker cannot be nil")
    repo = Repo(picker.name.project.name or "default", picker.name.name, picker.name.type or "user")
    if find_repo(txn, repo) is None:
        raise NotFound(f"picking repo: get repo info with id: {repo_missing(repo)}")
    return repo


def pick_branch(txn: Snapshot, picker: pfs_pb2.BranchPicker) -> BranchRow:
    """Return the branch that a picker picks.

    :raises NotFound: there is none.
    """
    if picker.WhichOneof("picker") != "name":
        raise PachError("branch picker cannot be nil")
    repo = pick_repo(txn, picker.name.repo)
    return branch_row(txn, Branch(repo, picker.name.name))


def pick_commit(txn: Snapshot, picker: pfs_pb2.CommitPicker) -> CommitRow:
    """Return the commit that a picker picks.

    :raises NotFound: there is none.
    """
    kind = picker.WhichOneof("picker")
    if kind == "branch_head":
        head = pick_branch(txn, picker.branch_head).head_pk
        assert head is not None
        return commit_by_pk(txn, head)
    if kind == "id":
        return resolve_commit(txn, (pick_repo(txn, picker.id.repo), picker.id.id))
    if kind == "ancestor":
        start = pick_commit(txn, picker.ancestor.start)
        return _ancestor(txn, start, picker.ancestor.offset) if picker.ancestor.offset else start
    if kind == "branch_root":
        head = pick_branch(txn, picker.branch_root.branch).head_pk
        assert head is not None
        return _from_root(txn, commit_by_pk(txn, head), picker.branch_root.offset)
    raise PachError("commit picker cannot be nil")
