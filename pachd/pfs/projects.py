"""Projects: the name spaces of repos."""

from collections.abc import Iterator
from typing import Any

from pachd.errors import AlreadyExists, FailedPrecondition, NotFound
from pachd.pfs import stamps
from pachd.pfs.names import validate_project
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn


def _find(txn: Snapshot, name: str) -> Any:
    return txn.db.execute("SELECT * FROM projects WHERE name=?", (name,)).fetchone()


def _info(row: Any) -> pfs_pb2.ProjectInfo:
    return pfs_pb2.ProjectInfo(
        project=pfs_pb2.Project(name=row["name"]),
        description=row["description"],
        created_at=stamps.stamp(row["created"]),
        metadata=stamps.load(row["metadata"]),
    )


def create_project(txn: Txn, name: str, description: str = "", update: bool = False) -> None:
    """Create a project, or with `update` change the description of one.

    :raises AlreadyExists: there is one, and not `update`.
    :raises NotFound: there is none, and `update`.
    """
    validate_project(name)
    found = _find(txn, name)
    if update:
        if found is None:
            raise NotFound(f'get project {name}: get project by name: project "{name}" not found')
        txn.db.execute("UPDATE projects SET description=? WHERE name=?", (description, name))
        return
    if found is not None:
        raise AlreadyExists(f'project "{name}" already exists\nproject {name} already exists')
    txn.db.execute("INSERT INTO projects (name, description, created) VALUES (?,?,?)", (name, description, txn.now))


def inspect_project(txn: Snapshot, name: str) -> pfs_pb2.ProjectInfo:
    """Return a project.

    :raises NotFound: there is none.
    """
    row = _find(txn, name)
    if row is None:
        raise NotFound(f'error getting project "{name}": get project by name: project "{name}" not found')
    return _info(row)


def list_projects(txn: Snapshot) -> Iterator[pfs_pb2.ProjectInfo]:
    """Iterate over all projects, oldest first."""
    for row in txn.db.execute("SELECT * FROM projects ORDER BY pk").fetchall():
        yield _info(row)


def require_project(txn: Snapshot, name: str) -> None:
    """Raise NotFound, in CreateRepo's words, if there is no such project."""
    if _find(txn, name) is None:
        raise NotFound(f'cannot find project "{name}": get project by name: project "{name}" not found')


def delete_project(txn: Txn, name: str, force: bool = False) -> None:
    """Delete a project, which must be empty; `force` takes its repos with it.

    :raises FailedPrecondition: it has repos.
    :raises NotFound: there is none.
    """
    from pachd.pfs import repos

    validate_project(name)
    infos = list(repos.list_repos(txn, projects=[name]))
    if infos and not force:
        left = "\n".join(f"repo {repos.key_of(info)} still exists" for info in infos)
        raise FailedPrecondition(f"cannot delete project {name}: {left}")
    if _find(txn, name) is None:
        raise NotFound(f'delete project "{name}": project "{name}" not found')
    if infos:
        repos.delete_repos(txn, {name}, force=True)
    txn.db.execute("DELETE FROM projects WHERE name=?", (name,))
