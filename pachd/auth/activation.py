"""Switching access control on and off."""

from pachd.auth import bindings, tokens
from pachd.auth.resources import THE_CLUSTER, project_resource, repo_resource
from pachd.auth.roles import CLUSTER_ADMIN, PROJECT_CREATOR, PROJECT_WRITER
from pachd.auth.subjects import EVERYBODY, INTERNAL, ROOT
from pachd.errors import Unimplemented
from pachd.store import Txn
from pachd.types import Repo


def activate(txn: Txn, root_token: str = "") -> str:
    """Switch access control on; returns the root token, made up unless given. Raises Unimplemented if it is on already.

    What exists already gets its bindings by `activate_repos`.
    """
    if bindings.active(txn):
        raise Unimplemented("the auth service is already activated")
    bindings.create(txn, THE_CLUSTER, ROOT, [CLUSTER_ADMIN])
    bindings.set_roles(txn, THE_CLUSTER, INTERNAL, [CLUSTER_ADMIN])
    bindings.set_roles(txn, THE_CLUSTER, EVERYBODY, [PROJECT_CREATOR])
    return tokens.make(txn, ROOT, token=root_token)


def activate_repos(txn: Txn) -> None:
    """Give the projects and repos of earlier times their bindings: everybody may make repos in the project default."""
    for row in txn.db.execute("SELECT name FROM projects").fetchall():
        if row["name"] == "default":
            bindings.create(txn, project_resource("default"), EVERYBODY, [PROJECT_WRITER])
        else:
            bindings.create(txn, project_resource(row["name"]))
    for row in txn.db.execute("SELECT project, name, type FROM repos").fetchall():
        bindings.create(txn, repo_resource(Repo(row["project"], row["name"], row["type"])))


def deactivate(txn: Txn) -> None:
    """Switch access control off: all tokens, role bindings and groups are forgotten."""
    for table in ("auth_roles", "auth_resources", "auth_tokens", "auth_members", "auth_users", "auth_groups"):
        txn.db.execute(f"DELETE FROM {table}")
