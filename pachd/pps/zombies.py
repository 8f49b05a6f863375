"""Output that no datum answers for: files of an output commit whose datum the meta commit does not know."""

from collections.abc import Iterator

from pachd.errors import NotFound
from pachd.pfs import read, refs, repos
from pachd.proto import pfs_pb2
from pachd.store import Snapshot
from pachd.types import Repo


def of_commit(txn: Snapshot, commit: pfs_pb2.Commit) -> Iterator[str]:
    """Yield a sentence for each such file of one output commit. Raises NotFound, also if the repo is no pipeline's."""
    row = refs.resolve_commit(txn, commit)
    meta = pfs_pb2.Commit()
    meta.CopyFrom(commit)
    meta.repo.CopyFrom(refs.repo_pb(row.repo._replace(type="meta")))
    if not _has(txn, row.repo._replace(type="meta")):
        refs.resolve_commit(txn, meta)  # says so, and names the commit as the client does
    yield from _stale(txn, row)


def of_all(txn: Snapshot) -> Iterator[str]:
    """The same for the newest commit of every pipeline's master that is finished and did not fail."""
    for output in outputs(txn):
        try:
            row: refs.CommitRow | None = refs.resolve_commit(txn, (output, "master"))
        except NotFound:  # it writes to another branch
            continue
        while row is not None and (row.state != pfs_pb2.FINISHED or row.error):
            row = refs.parent(txn, row)
        if row is not None:
            yield from _stale(txn, row)


def _has(txn: Snapshot, repo: Repo) -> bool:
    try:
        refs.repo_row(txn, repo)
    except NotFound:
        return False
    return True


def outputs(txn: Snapshot) -> list[Repo]:
    """Return the output repos of all pipelines that run jobs."""
    found = [refs.repo_of(info.repo) for info in repos.list_repos(txn, type="meta")]
    return [repo._replace(type="user") for repo in found]


def _stale(txn: Snapshot, row: refs.CommitRow) -> Iterator[str]:
    about = read.View.of(txn, _meta(txn, row))
    left: list[tuple[str, str]] = []
    known = ""  # what one datum wrote mostly lies side by side
    for entry in read.View.of(txn, row).walk("/"):
        if entry.is_dir or entry.datum == known:
            continue
        try:
            about.inspect(f"/meta/{entry.datum}/meta")
            known = entry.datum
        except NotFound:
            left.append((entry.datum, entry.path))
    for datum, path in sorted(left):
        yield f"stale datum {datum} had file {path}"


def _meta(txn: Snapshot, row: refs.CommitRow) -> refs.CommitRow:
    """The meta commit of a job's output; of what users wrote, the one of the last job before."""
    above: refs.CommitRow | None = row
    problem: NotFound | None = None
    while above is not None:
        try:
            return refs.resolve_commit(txn, (row.repo._replace(type="meta"), above.id))
        except NotFound as error:
            problem = problem or error
        above = refs.parent(txn, above)
    assert problem is not None
    raise problem
