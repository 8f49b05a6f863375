"""Pickers: how newer RPCs name projects, repos, branches and commits. Unlike a reference, none is resolved by the set
that a commit belongs to; the words of the errors are Pachyderm's."""

from pachd.errors import NotFound, PachError
from pachd.pfs import refs
from pachd.proto import pfs_pb2
from pachd.store import Snapshot
from pachd.types import Branch, Repo


def pick_project(txn: Snapshot, picker: pfs_pb2.ProjectPicker) -> str:
    """Return the name of the project that a picker names. Raises NotFound, or PachError if it names none."""
    if picker.WhichOneof("picker") is None:
        raise PachError("project picker cannot be nil")
    if not txn.db.execute("SELECT 1 FROM projects WHERE name=?", (picker.name,)).fetchone():
        raise NotFound(f"picking project: {refs.missing_project(picker.name)}")
    return picker.name


def pick_repo(txn: Snapshot, picker: pfs_pb2.RepoPicker) -> Repo:
    """Return the repo that a picker names. Raises NotFound or PachError."""
    if picker.WhichOneof("picker") is None:
        raise PachError("repo picker cannot be nil")
    try:
        project = pick_project(txn, picker.name.project)
        repo = Repo(project, picker.name.name, picker.name.type or "user")
        try:
            refs.repo_row(txn, repo)
        except NotFound as err:
            raise NotFound(f"get repo info with id: {refs.missing_repo(txn, repo)}") from err
        except PachError as err:
            raise err.wrapped("get repo info with id") from err
    except PachError as err:
        raise err.wrapped("picking repo") from err
    return repo


def pick_branch(txn: Snapshot, picker: pfs_pb2.BranchPicker) -> Branch:
    """Return the branch that a picker names. Raises NotFound or PachError."""
    if picker.WhichOneof("picker") is None:
        raise PachError("branch picker cannot be nil")
    try:
        branch = Branch(pick_repo(txn, picker.name.repo), picker.name.name)
        if refs.find_branch(txn, branch) is None:
            raise NotFound(f"branch (id=0, branch={branch}) not found")
    except PachError as err:
        raise err.wrapped("picking branch") from err
    return branch


def pick_commit(txn: Snapshot, picker: pfs_pb2.CommitPicker) -> refs.CommitRow:
    """Return the commit that a picker names. Raises NotFound or PachError."""
    kind = picker.WhichOneof("picker")
    if kind is None:
        raise PachError("commit picker cannot be nil")
    if kind == "ancestor":
        return refs.ancestor(txn, _inner(txn, picker.ancestor.start), picker.ancestor.offset)
    if kind == "branch_root":
        head = _inner(txn, pfs_pb2.CommitPicker(branch_head=picker.branch_root.branch))
        return refs.from_root(txn, head, picker.branch_root.offset)
    try:
        if kind == "branch_head":
            branch = pick_branch(txn, picker.branch_head)
            found = refs.find_branch(txn, branch)
            if found["head_pk"] is None:
                raise NotFound(f"branch {branch} has no commit")
            return refs.commit_row(txn, found["head_pk"])
        return _by_id(txn, picker.id)
    except PachError as err:
        raise err.wrapped("picking commit") from err


def _inner(txn: Snapshot, picker: pfs_pb2.CommitPicker) -> refs.CommitRow:
    try:
        return pick_commit(txn, picker)
    except PachError as err:
        raise err.wrapped("picking commit") from err


def _by_id(txn: Snapshot, picker: pfs_pb2.CommitPicker.CommitByGlobalId) -> refs.CommitRow:
    repo = pick_repo(txn, picker.repo)
    row = refs.find_commit(txn, refs.repo_row(txn, repo)["pk"], picker.id)
    if row is None:
        key = f"{repo.project}/{repo.name}.{repo.type}@{picker.id}"
        raise NotFound(f"get commit by commit key: commit (int_id=0, commit_id={key}) not found")
    return row
