"""Who made what: a new project or repo belongs to whoever makes it. Does nothing while access control is off.

The layers below the wire tell who that is by `txn.state["principal"]`, which is missing in pachd's own writes.
"""

from pachd.auth import bindings
from pachd.auth.resources import Resource, project_resource, repo_resource
from pachd.auth.roles import PROJECT_OWNER, REPO_OWNER
from pachd.store import Snapshot, Txn
from pachd.types import Repo


def principal(txn: Txn) -> str:
    """Return who writes, "" if that is pachd itself or access control is off."""
    found: str = txn.state.get("principal", "")
    return found


def repo_created(txn: Txn, repo: Repo) -> None:
    """Make the writer the owner of a new repo."""
    _own(txn, repo_resource(repo), REPO_OWNER)


def repo_deleted(txn: Txn, repo: Repo) -> None:
    """Forget who may use a repo that is gone; a meta repo shares its pipeline's binding."""
    if repo.type != "meta":
        bindings.delete(txn, repo_resource(repo))


def project_created(txn: Txn, name: str) -> None:
    """Make the writer the owner of a new project."""
    _own(txn, project_resource(name), PROJECT_OWNER)
    if principal(txn):
        txn.db.execute("INSERT OR REPLACE INTO auth_project_authors VALUES (?,?)", (name, principal(txn)))


def project_deleted(txn: Txn, name: str) -> None:
    """Forget who may use a project that is gone."""
    bindings.delete(txn, project_resource(name))


def _own(txn: Txn, resource: Resource, role: str) -> None:
    if bindings.active(txn):
        bindings.create(txn, resource, principal(txn), [role])


def project_author(txn: Snapshot, name: str) -> str:
    """Return who made a project, "" if that is not known."""
    row = txn.db.execute("SELECT principal FROM auth_project_authors WHERE project=?", (name,)).fetchone()
    return row["principal"] if row else ""


def branch_created(txn: Txn, pk: int) -> None:
    """Remember who made a branch."""
    if principal(txn):
        txn.db.execute("INSERT INTO auth_branch_authors VALUES (?,?)", (pk, principal(txn)))


def branch_author(txn: Snapshot, pk: int) -> str:
    """Return who made a branch, "" if that is not known."""
    row = txn.db.execute("SELECT principal FROM auth_branch_authors WHERE branch_pk=?", (pk,)).fetchone()
    return row["principal"] if row else ""


def commit_created(txn: Txn, pk: int) -> None:
    """Remember who made a commit."""
    if principal(txn):
        txn.db.execute("INSERT INTO auth_commit_authors VALUES (?,?)", (pk, principal(txn)))


def commit_author(txn: Snapshot, pk: int) -> str:
    """Return who made a commit, "" if that is not known."""
    row = txn.db.execute("SELECT principal FROM auth_commit_authors WHERE commit_pk=?", (pk,)).fetchone()
    return row["principal"] if row else ""
