"""Finding repos, branches and commits: by key, by reference (`master`, `<id>`, `master^2`, `master.1`)."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pachd.errors import NotFound, PachError
from pachd.pfs import ancestry
from pachd.proto import pfs_pb2
from pachd.store import Snapshot
from pachd.types import Branch, Commit, Repo

_ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{19}")
_WALK = 10_000  # so many at most, if nobody says how many
_MAX_PROJECT = 51  # characters; Kubernetes names bound Pachyderm's
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
TYPES = ("user", "meta", "spec", "unknown")  # of repos; nobody uses the last one
_SELECT = """SELECT c.*, r.project, r.name, r.type FROM commits c JOIN repos r ON r.pk = c.repo_pk """


@dataclass(frozen=True, slots=True)
class CommitRow:
    """A commit as it is stored; times in nanoseconds since 1970, `branch` the one it was made on."""

    pk: int
    repo: Repo
    repo_pk: int
    id: str
    branch: str | None
    parent_pk: int | None
    origin: int
    state: int
    description: str
    error: str
    started: int
    finishing: int | None
    finished: int | None
    updated: int
    root: bytes | None
    size: int | None
    metadata: str

    @property
    def key(self) -> Commit:
        """Return the commit's key."""
        return Commit(self.repo, self.id)


def is_id(text: str) -> bool:
    """Whether a text is a commit ID (a UUID of version 4 in 32 hex digits) rather than a branch name."""
    return bool(_ID.fullmatch(text))


def check_name(name: str) -> None:
    """Raise PachError unless `name` may be that of a project, repo or branch."""
    if not _NAME.fullmatch(name):
        raise PachError(f"name ({name}) invalid: only alphanumeric characters, underscores, and dashes are allowed")


def check_project_name(name: str) -> None:
    """Raise PachError unless `name` may be that of a project."""
    if len(name) > _MAX_PROJECT:
        raise PachError(
            f'project name "{name}" is {len(name) - _MAX_PROJECT} characters longer than the {_MAX_PROJECT} max'
        )
    check_name(name)
    if not name[0].isalnum():
        raise PachError("project names must start with an alphanumeric character")


def timestamp(ns: int) -> Timestamp:
    """Return a protobuf time."""
    stamp = Timestamp()
    stamp.FromNanoseconds(ns)
    return stamp


def repo_pb(repo: Repo) -> pfs_pb2.Repo:
    """Return a repo's key as a message."""
    return pfs_pb2.Repo(name=repo.name, type=repo.type, project=pfs_pb2.Project(name=repo.project))


def branch_pb(branch: Branch) -> pfs_pb2.Branch:
    """Return a branch's key as a message."""
    return pfs_pb2.Branch(repo=repo_pb(branch.repo), name=branch.name)


def commit_pb(row: CommitRow) -> pfs_pb2.Commit:
    """Return a commit's key as a message, with the branch it was made on."""
    commit = pfs_pb2.Commit(repo=repo_pb(row.repo), id=row.id)
    if row.branch is not None:
        commit.branch.CopyFrom(branch_pb(Branch(row.repo, row.branch)))
    return commit


def metadata(text: str) -> dict[str, str]:
    """Return the user's metadata of a row."""
    value: dict[str, str] = json.loads(text)
    return value


def repo_of(message: pfs_pb2.Repo) -> Repo:
    """Return a repo's key; the project has a default, the type has none: without one there is no such repo."""
    return Repo(message.project.name or "default", message.name, message.type)


def branch_key(commit: pfs_pb2.Commit, name: str) -> Branch:
    """Return the branch `name` of the repo that `commit` names."""
    return Branch(repo_of(commit.repo if commit.HasField("repo") else commit.branch.repo), name)


def check_type(type: str) -> None:
    """Raise PachError unless `type` is one that a repo may have; the words are those of Pachyderm's database."""
    if type not in TYPES:
        raise PachError(f'ERROR: invalid input value for enum pfs.repo_type: "{type}" (SQLSTATE 22P02)')


def missing_project(name: str) -> str:
    """Return the sentence about a project that is not there."""
    return f'project "{name}" not found' if name else "project not found"


def missing_repo(txn: Snapshot, repo: Repo) -> str:
    """Return the sentence about a repo that is not there, which names the project first if that is missing too."""
    known = txn.db.execute("SELECT 1 FROM projects WHERE name=?", (repo.project,)).fetchone()
    told = "" if known else f"get project by name: {missing_project(repo.project)}\n"
    return f"{told}repo (id=0, project={repo.project}, name={repo.name}, type={repo.type}) not found"


def repo_row(txn: Snapshot, repo: Repo) -> Any:
    """Return the row of a repo. Raises NotFound, or PachError for a type that none has."""
    try:
        check_type(repo.type)
    except PachError as err:
        raise err.wrapped("scanning repo row") from err
    row = txn.db.execute(
        "SELECT * FROM repos WHERE project=? AND name=? AND type=?", (repo.project, repo.name, repo.type)
    ).fetchone()
    if row is None:
        raise NotFound(f"repo {repo} not found")
    return row


def find_branch(txn: Snapshot, branch: Branch) -> Any:
    """Return the row of a branch, or None. Raises PachError for a type that no repo has."""
    try:
        check_type(branch.repo.type)
    except PachError as err:
        raise err.wrapped("could not get branch") from err
    return txn.db.execute(
        "SELECT b.* FROM branches b JOIN repos r ON r.pk=b.repo_pk WHERE r.project=? AND r.name=? AND r.type=? "
        "AND b.name=?",
        (branch.repo.project, branch.repo.name, branch.repo.type, branch.name),
    ).fetchone()


def branch_row(txn: Snapshot, branch: Branch) -> Any:
    """Return the row of a branch. Raises NotFound for it or for its repo."""
    row = find_branch(txn, branch)
    if row is None:
        try:
            repo_row(txn, branch.repo)
        except NotFound as err:
            raise NotFound(
                f"{missing_repo(txn, branch.repo)}\n"
                f'branch (id=0, branch={branch}) not found\nbranch "{branch.name}" not found in repo {branch.repo}'
            ) from err
        raise NotFound(
            f'branch (id=0, branch={branch}) not found\nbranch "{branch.name}" not found in repo {branch.repo}'
        )
    return row


def branch_of(txn: Snapshot, pk: int) -> Branch:
    """Return the key of a branch by its number."""
    row = txn.db.execute(
        "SELECT b.name AS branch, r.project, r.name, r.type FROM branches b JOIN repos r ON r.pk=b.repo_pk "
        "WHERE b.pk=?",
        (pk,),
    ).fetchone()
    return Branch(Repo(row["project"], row["name"], row["type"]), row["branch"])


def _row(found: Any) -> CommitRow:
    return CommitRow(
        found["pk"],
        Repo(found["project"], found["name"], found["type"]),
        found["repo_pk"],
        found["id"],
        found["branch"],
        found["parent_pk"],
        found["origin"],
        found["state"],
        found["description"],
        found["error"],
        found["started"],
        found["finishing"],
        found["finished"],
        found["updated"],
        found["root"],
        found["size"],
        found["metadata"],
    )


def commit_row(txn: Snapshot, pk: int) -> CommitRow:
    """Return a commit by its number. Raises NotFound."""
    found = txn.db.execute(_SELECT + "WHERE c.pk=?", (pk,)).fetchone()
    if found is None:
        raise NotFound(f"commit number {pk} not found")
    return _row(found)


def commit_rows(txn: Snapshot, where: str, values: tuple[Any, ...] = ()) -> list[CommitRow]:
    """Return the commits for which `where` (SQL over `c` and `r`, perhaps with an ORDER BY) holds."""
    return [_row(found) for found in txn.db.execute(_SELECT + "WHERE " + where, values).fetchall()]


def find_commit(txn: Snapshot, repo_pk: int, id: str) -> CommitRow | None:
    """Return the commit of a repo with this very ID, or None."""
    found = txn.db.execute(_SELECT + "WHERE c.repo_pk=? AND c.id=?", (repo_pk, id)).fetchone()
    return None if found is None else _row(found)


def parent(txn: Snapshot, row: CommitRow) -> CommitRow | None:
    """Return a commit's parent, or None."""
    return None if row.parent_pk is None else commit_row(txn, row.parent_pk)


def resolve_commit(txn: Snapshot, commit: pfs_pb2.Commit | tuple[Repo, str]) -> CommitRow:
    """Return the commit that a message or (repo, reference) names.

    An ID wins over a branch. An ID that the repo does not have names the repo's commit in the provenance of that
    commit set. Raises NotFound, or PachError for an ancestry that makes no sense.
    """
    if isinstance(commit, tuple):
        repo, text = commit
        asked, named = (text, "") if ancestry.like_id(text) else ("", text)
    else:
        if not commit.HasField("repo") and not commit.branch.HasField("repo"):
            raise PachError("pick commit tx: cannot pick commit with no ID or branch")
        handle = commit.repo if commit.HasField("repo") else commit.branch.repo
        repo = Repo(handle.project.name or "default", handle.name, handle.type)
        asked, named = commit.id, commit.branch.name
        if not asked and not named:
            raise PachError("pick commit tx: cannot pick commit with no ID or branch")
        text = named + asked if asked[:1] in ("", "^", "~", ".") and named else asked
    reference = ancestry.parse(repo, text)
    start = _start(txn, repo, reference, asked, named, text)
    if reference.from_root:
        return from_root(txn, start, reference.offset, "pick commit tx: ")
    return ancestor(txn, start, reference.offset, "pick commit tx: ") if reference.offset else start


def _start(txn: Snapshot, repo: Repo, reference: ancestry.Reference, asked: str, named: str, text: str) -> CommitRow:
    """The commit of a reference before it goes back. asked, named: the ID and the branch of the request, which
    Pachyderm's errors repeat as they are."""
    told = f"pick commit tx: commit {repo}@{asked} not found\n"
    name, _, kind = (repo.name if repo.type == "user" else f"{repo.name}.{repo.type}").partition(".")
    meant = Repo(repo.project, name, kind or "user")  # what the reference says as a text
    try:
        found = repo_row(txn, meant)
    except PachError as err:
        by_id = ancestry.like_id(reference.base)
        picking = "picking commit: picking repo" if by_id else "picking commit: picking branch: picking repo"
        if text != reference.base:
            picking = f"picking commit: {picking}"
        if not txn.db.execute("SELECT 1 FROM projects WHERE name=?", (repo.project,)).fetchone():
            _check_project_of(repo, text, by_id)
            raise NotFound(f"pick commit tx: {picking}: picking project: {missing_project(repo.project)}") from err
        if isinstance(err, NotFound):
            raise NotFound(f"{told}repo {repo} not found") from err
        raise err.wrapped(f"pick commit tx: {picking}: get repo info with id") from err
    repo = meant
    if ancestry.like_id(reference.base):
        row = find_commit(txn, found["pk"], reference.base.lower()) or _alias(txn, found["pk"], asked)
        if row is None:
            raise NotFound(f"{told}commit {repo}@{text} not found")
        return row
    branch = find_branch(txn, Branch(repo, reference.base))
    if branch is None or branch["head_pk"] is None:
        raise NotFound(f'{told}branch "{named}" not found in repo {repo}')
    return commit_row(txn, branch["head_pk"])


def _check_project_of(repo: Repo, text: str, by_id: bool) -> None:
    """Raise PachError for a name that no project can have, where a reference is read."""
    try:
        check_project_name(repo.project)
    except PachError as err:
        told = "" if by_id else f"unmarshal branch picker {repo}@{text}: "
        raise err.wrapped(
            f"pick commit tx: {told}unmarshal repo picker {repo}: unmarshal project {repo.project}"
        ) from err


def _alias(txn: Snapshot, repo_pk: int, id: str) -> CommitRow | None:
    """The repo's commit in the provenance of the commit set `id`."""
    found = txn.db.execute(
        "WITH RECURSIVE up (pk) AS (SELECT pk FROM commits WHERE id=? UNION "
        "SELECT p.source_pk FROM commit_provenance p JOIN up ON p.commit_pk = up.pk) "
        "SELECT c.pk FROM commits c JOIN up ON up.pk = c.pk WHERE c.repo_pk=? ORDER BY c.pk DESC LIMIT 1",
        (id, repo_pk),
    ).fetchone()
    return None if found is None else commit_row(txn, found["pk"])


def ancestor(txn: Snapshot, start: CommitRow, offset: int, told: str = "") -> CommitRow:
    """Return the commit `offset` before another one. Raises PachError, beginning with `told`, if there is none."""
    pk: int | None = start.pk
    for done in range(offset):
        found = txn.db.execute("SELECT parent_pk FROM commits WHERE pk=?", (pk,)).fetchone()
        pk = found["parent_pk"]
        if pk is None:
            raise PachError(
                f"{told}picking commit: invalid offset for ancestor of commit: "
                f"{_dotted(start)}, offset requested: {offset}, offset traversable: {done}"
            )
    assert pk is not None
    return commit_row(txn, pk)


def from_root(txn: Snapshot, head: CommitRow, offset: int, told: str = "") -> CommitRow:
    """Return the commit `offset` after the first one of those that a commit is built on.

    One further than the commit itself is the commit again, as in Pachyderm. Raises PachError, beginning with `told`,
    for what is beyond that.
    """
    chain = _ancestors(txn, head.pk)
    if offset > len(chain):
        raise PachError(
            f"{told}picking commit: invalid offset from branch root for head commit: "
            f"{_dotted(head)}, offset: {offset}, maximum depth: {len(chain)}"
        )
    return commit_row(txn, chain[max(len(chain) - 1 - offset, 0)])


def _dotted(row: CommitRow) -> str:
    return f"{row.repo.project}/{row.repo.name}.{row.repo.type}@{row.id}"


def levels(txn: Snapshot, start: int, sql: str, limit: int = 0, depth: int = 0) -> Iterator[int]:
    """Yield the numbers that `sql` leads to from `start`, step by step, each once: those that are nearer first.

    sql: what one number leads to, as `pk`. limit, depth: how many, and how many steps; 0 is 10,000 and no limit.
    """
    seen, level, left = {start}, [start], limit or _WALK
    while level and left > 0:
        found = {row["pk"] for pk in level for row in txn.db.execute(sql, (pk,)).fetchall()} - seen
        level = sorted(found)
        seen |= found
        yield from level[:left]
        left -= len(level)
        depth -= 1
        if depth == 0:
            return


def _ancestors(txn: Snapshot, pk: int) -> list[int]:
    """The numbers of a commit and its ancestors, the commit first."""
    found = txn.db.execute(
        "WITH RECURSIVE line (pk, parent) AS (SELECT pk, parent_pk FROM commits WHERE pk=? UNION ALL "
        "SELECT c.pk, c.parent_pk FROM commits c JOIN line ON c.pk = line.parent) SELECT pk FROM line",
        (pk,),
    ).fetchall()
    return [row["pk"] for row in found]
