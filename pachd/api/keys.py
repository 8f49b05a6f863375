"""From what clients send to the keys of the core: defaults filled in, old forms accepted, missing parts refused."""

from pachd.errors import PachError
from pachd.proto import pfs_pb2
from pachd.types import Branch, Repo


def project_name(project: pfs_pb2.Project) -> str:
    """Return the project's name; python-pachyderm 7.6 sends an empty one for `default`."""
    return project.name or "default"


def repo_key(message: pfs_pb2.Repo) -> Repo:
    """Return the key of a repo; the type has no default: without one there is no such repo."""
    return Repo(project_name(message.project), message.name, message.type)


def required_repo(request: object) -> Repo:
    """Return the key of `request.repo`.

    :raises PachError: there is none.
    """
    if not request.HasField("repo"):  # type: ignore[attr-defined]
        raise PachError("repo cannot be nil")
    return repo_key(request.repo)  # type: ignore[attr-defined]


def branch_key(message: pfs_pb2.Branch) -> Branch:
    """Return the key of a branch."""
    return Branch(repo_key(message.repo), message.name)


def required_branch(request: object) -> Branch:
    """Return the key of `request.branch`.

    :raises PachError: there is none.
    """
    if not request.HasField("branch"):  # type: ignore[attr-defined]
        raise PachError("branch cannot be nil")
    if not request.branch.HasField("repo"):  # type: ignore[attr-defined]
        raise PachError("branch repo cannot be nil")
    return branch_key(request.branch)  # type: ignore[attr-defined]


def normal_commit(message: pfs_pb2.Commit) -> pfs_pb2.Commit:
    """Return a reference to a commit with its repo where the core looks for it.

    7.6 sends `branch.repo` without `repo`, and no project.
    """
    commit = pfs_pb2.Commit()
    commit.CopyFrom(message)
    if not commit.HasField("repo") and commit.branch.HasField("repo"):
        commit.repo.CopyFrom(commit.branch.repo)
    if commit.HasField("repo"):
        _fill(commit.repo)
    if commit.HasField("branch"):
        if commit.branch.name and not commit.branch.HasField("repo"):
            commit.branch.repo.CopyFrom(commit.repo)
        if commit.branch.HasField("repo"):
            _fill(commit.branch.repo)
    return commit


def _fill(repo: pfs_pb2.Repo) -> None:
    repo.project.name = repo.project.name or "default"


def required_commit(request: object, field: str = "commit") -> pfs_pb2.Commit:
    """Return `request.commit` made normal.

    :raises PachError: there is none.
    """
    if not request.HasField(field):  # type: ignore[attr-defined]
        raise PachError("commit cannot be nil")
    commit = normal_commit(getattr(request, field))
    if not commit.HasField("repo"):
        raise PachError("commit must have a repo")
    return commit


def handle(commit: pfs_pb2.Commit) -> str:
    """Return how errors call a commit that a client has named: as it did."""
    id, name = commit.id, commit.branch.name
    return f"{repo_key(commit.repo)}@{name + id if id[:1] in ('', '^', '~', '.') and name else id}"


def required_file(request: object, field: str = "file") -> pfs_pb2.File:
    """Return `request.file` with its commit made normal.

    :raises PachError: there is none.
    """
    if not request.HasField(field):  # type: ignore[attr-defined]
        raise PachError("file cannot be nil")
    message = getattr(request, field)
    return pfs_pb2.File(commit=required_commit(message), path=message.path, datum=message.datum)
