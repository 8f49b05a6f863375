"""The files that a request is about: those of a commit, or of a file set."""

from pachd.api.service import Call
from pachd.errors import NotFound
from pachd.pfs import refs, temporary
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Snapshot
from pachd.types import Branch


def open_view(snapshot: Snapshot, file: pfs_pb2.File, call: Call) -> tuple[View, pfs_pb2.Commit]:
    """Return the files of a commit or of a file set, and the commit as answers name it."""
    if file.commit.repo.name == temporary.REPO:
        return temporary.view(snapshot, file.commit.id), file.commit
    if call.old_client:
        return _open_for_old(snapshot, file)
    row = refs.resolve_commit(snapshot, file.commit)
    commit = refs.commit_pb(row)
    commit.ClearField("branch")
    return View.of(snapshot, row, file.datum, file.commit.id), commit


def _open_for_old(snapshot: Snapshot, file: pfs_pb2.File) -> tuple[View, pfs_pb2.Commit]:
    """The same for python-pachyderm 7.6, whose `path_exists` knows the sentences of an older server."""
    try:
        row = refs.resolve_commit(snapshot, file.commit)
    except NotFound as e:
        if not file.commit.branch.name:
            raise
        branch = Branch(refs.repo_of(file.commit.repo), file.commit.branch.name)
        raise NotFound(f'branch "{branch.name}" not found in repo {branch.repo}') from e
    return View.of(snapshot, row, file.datum, row.id), refs.commit_pb(row)
