"""Role bindings: which principal has which roles on a resource."""

from collections.abc import Iterable

from pachd.auth import roles
from pachd.auth.resources import THE_CLUSTER, Resource
from pachd.errors import PachError, Unimplemented
from pachd.store import Snapshot, Txn


class NotActivated(Unimplemented):
    """Access control is off. Clients know this sentence: pachctl, and both Python clients' `delete_all`."""

    def __init__(self, text: str = "the auth service is not activated") -> None:
        super().__init__(text)


class NoRoleBinding(PachError):
    """The resource is not there, or access control does not know it."""


def no_binding(resource: Resource) -> NoRoleBinding:
    """Return the error about a resource without a binding."""
    return NoRoleBinding(f"no role binding exists for {resource}")


def active(txn: Snapshot) -> bool:
    """Return whether access control is active."""
    return exists(txn, THE_CLUSTER)


def require_active(txn: Snapshot) -> None:
    """Raise NotActivated unless access control is active."""
    if not active(txn):
        raise NotActivated


def exists(txn: Snapshot, resource: Resource) -> bool:
    """Return whether a resource has a role binding, even an empty one."""
    return txn.db.execute("SELECT 1 FROM auth_resources WHERE key=?", (resource.key,)).fetchone() is not None


def create(txn: Txn, resource: Resource, principal: str = "", role_names: Iterable[str] = ()) -> bool:
    """Give a new resource its binding; returns False, and changes nothing, if it has one."""
    if exists(txn, resource):
        return False
    txn.db.execute("INSERT INTO auth_resources VALUES (?)", (resource.key,))
    if principal:
        _put(txn, resource, principal, role_names)
    return True


def delete(txn: Txn, resource: Resource) -> None:
    """Forget the binding of a resource that is gone."""
    txn.db.execute("DELETE FROM auth_resources WHERE key=?", (resource.key,))


def set_roles(txn: Txn, resource: Resource, principal: str, role_names: Iterable[str]) -> None:
    """Give a principal exactly these roles (none: take all away). Raises NoRoleBinding, PachError: unknown role."""
    names = [roles.role(name).name for name in role_names]
    if not exists(txn, resource):
        raise no_binding(resource)
    txn.db.execute("DELETE FROM auth_roles WHERE resource=? AND principal=?", (resource.key, principal))
    _put(txn, resource, principal, names)


def _put(txn: Txn, resource: Resource, principal: str, role_names: Iterable[str]) -> None:
    txn.db.executemany(
        "INSERT OR IGNORE INTO auth_roles VALUES (?,?,?)", [(resource.key, principal, name) for name in role_names]
    )


def binding(txn: Snapshot, resource: Resource) -> dict[str, list[str]]:
    """Return the roles of each principal that has any on a resource; an unknown resource has none."""
    found: dict[str, list[str]] = {}
    for row in txn.db.execute("SELECT principal, role FROM auth_roles WHERE resource=?", (resource.key,)):
        found.setdefault(row["principal"], []).append(row["role"])
    return found
