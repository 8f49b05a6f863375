"""Projects: a name space of repos."""

from pachd.auth import owners
from pachd.errors import AlreadyExists, FailedPrecondition, NotFound, PachError
from pachd.pfs import refs, repos
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Repo

DEFAULT = "default"


def ensure_default(txn: Txn) -> None:
    """Make the project `default`, which is always there."""
    txn.db.execute("INSERT OR IGNORE INTO projects (name, created) VALUES (?,?)", (DEFAULT, txn.now))


def create_project(txn: Txn, name: str, description: str = "", update: bool = False) -> None:
    """Make a project, or with `update` change its description. Raises AlreadyExists, or PachError for the name."""
    _check_name(name)
    if txn.db.execute("SELECT 1 FROM projects WHERE name=?", (name,)).fetchone():
        if not update:
            raise AlreadyExists(f'project "{name}" already exists\nproject {name} already exists')
        txn.db.execute("UPDATE projects SET description=? WHERE name=?", (description, name))
        return
    if update:
        raise NotFound(f'get project {name}: get project by name: project "{name}" not found')
    txn.db.execute("INSERT INTO projects (name, description, created) VALUES (?,?,?)", (name, description, txn.now))
    owners.project_created(txn, name)


def _check_name(name: str) -> None:
    try:
        refs.check_project_name(name)
    except PachError as err:
        raise err.wrapped("invalid project name") from err


def require(txn: Snapshot, name: str) -> None:
    """Raise NotFound unless the project is there."""
    if not txn.db.execute("SELECT 1 FROM projects WHERE name=?", (name,)).fetchone():
        raise NotFound(refs.missing_project(name))


def _info(txn: Snapshot, row: dict[str, str | int]) -> pfs_pb2.ProjectInfo:
    return pfs_pb2.ProjectInfo(
        created_by=owners.project_author(txn, str(row["name"])),
        project=pfs_pb2.Project(name=str(row["name"])),
        description=str(row["description"]),
        created_at=refs.timestamp(int(row["created"])),
        metadata=refs.metadata(str(row["metadata"])),
    )


def inspect_project(txn: Snapshot, name: str) -> pfs_pb2.ProjectInfo:
    """Return a project. Raises NotFound."""
    row = txn.db.execute("SELECT * FROM projects WHERE name=?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'error getting project "{name}": get project by name: {refs.missing_project(name)}')
    return _info(txn, row)


def list_projects(txn: Snapshot) -> list[pfs_pb2.ProjectInfo]:
    """Return all projects, oldest first."""
    return [_info(txn, row) for row in txn.db.execute("SELECT * FROM projects ORDER BY created, name").fetchall()]


def delete_project(txn: Txn, name: str, force: bool = False) -> None:
    """Delete a project; with `force` its repos too. Raises NotFound, or FailedPrecondition if it has repos."""
    _check_name(name)
    if not txn.db.execute("SELECT 1 FROM projects WHERE name=?", (name,)).fetchone():
        raise NotFound(f'delete project "{name}": project "{name}" not found')
    found = txn.db.execute("SELECT name, type FROM repos WHERE project=? ORDER BY name, pk", (name,)).fetchall()
    if found and not force:
        still = "\n".join(f"repo {Repo(name, row['name'], row['type'])} still exists" for row in found)
        raise FailedPrecondition(f"cannot delete project {name}: {still}")
    for row in found:
        repos.drop(txn, Repo(name, row["name"], row["type"]))
    txn.db.execute("DELETE FROM projects WHERE name=?", (name,))
    owners.project_deleted(txn, name)
    if name == DEFAULT:
        ensure_default(txn)
        owners.project_created(txn, name)
