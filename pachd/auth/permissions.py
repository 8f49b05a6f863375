"""What a principal may do: the roles on the cluster, on the project and on the resource itself, taken together."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from pachd.auth import bindings, groups, roles
from pachd.auth.bindings import NoRoleBinding, no_binding, require_active
from pachd.auth.resources import THE_CLUSTER, Resource, project_resource
from pachd.auth.subjects import EVERYBODY
from pachd.errors import PachError, PermissionDenied
from pachd.proto import auth_pb2
from pachd.proto.auth_pb2 import CLUSTER, REPO, SPEC_REPO
from pachd.store import Snapshot

__all__ = ["Grants", "NotAuthorized", "authorize", "may", "of", "require"]


class NotAuthorized(PermissionDenied):
    """The principal lacks a permission."""


class Grants(NamedTuple):
    """What was found. `missing` and `satisfied` are permissions; `roles` all roles met on the way."""

    resource: Resource
    satisfied: list[int]
    missing: list[int]
    roles: list[str]

    def roles_told(self) -> list[str]:
        """Return the roles that say something about this type of resource, by name."""
        return sorted(name for name in self.roles if self.resource.type in roles.role(name).returned_for)

    def permissions_told(self) -> list[int]:
        """Return the permissions of these roles, role by role (what two of them hold is there twice)."""
        return [permission for name in self.roles_told() for permission in roles.role(name).permissions]


def authorize(txn: Snapshot, principal: str, resource: Resource, permissions: Iterable[int]) -> Grants:
    """Look up which of some permissions a principal has on a resource.

    A repo inherits from its project, everything inherits from the cluster; the search ends as soon as nothing is
    missing. Everybody reads spec repos. Raises NotActivated; NoRoleBinding if the resource or its project has none.
    """
    require_active(txn)
    missing = dict.fromkeys(permissions)
    satisfied: list[int] = []
    met: list[str] = []

    def take(names: Iterable[str]) -> None:
        for name in names:
            if name not in met:
                met.append(name)
                for permission in roles.role(name).permissions:
                    if permission in missing:
                        del missing[permission]
                        satisfied.append(permission)

    if resource.type == SPEC_REPO:
        take([roles.REPO_READER])
        if not missing:
            return Grants(resource, satisfied, [], met)
        resource = Resource(REPO, resource.name)
    subjects = (principal, EVERYBODY, *groups.groups_of(txn, principal))
    for level in _levels(resource):
        if level != THE_CLUSTER and not bindings.exists(txn, level):
            raise no_binding(level)
        found = bindings.binding(txn, level)
        for subject in subjects:
            take(found.get(subject, ()))
        if not missing:
            break
    return Grants(resource, satisfied, list(missing), met)


def _levels(resource: Resource) -> Iterator[Resource]:
    yield THE_CLUSTER
    if resource.type == REPO:
        parts = resource.name.split("/")
        if len(parts) != 2:
            raise PachError(f"invalid resource name {resource.name}")
        yield project_resource(parts[0])
    if resource.type != CLUSTER:
        yield resource


def require(txn: Snapshot, principal: str, resource: Resource, *permissions: int) -> None:
    """Raise NotAuthorized unless a principal has all these permissions on a resource; else as `authorize`."""
    found = authorize(txn, principal, resource, permissions)
    if found.missing:
        raise _refusal(principal, found.resource, permissions)


def _refusal(principal: str, resource: Resource, permissions: Sequence[int]) -> NotAuthorized:
    names = " ".join(auth_pb2.Permission.Name(p) for p in permissions)
    return NotAuthorized(
        f"{principal} is not authorized to perform this operation - needs permissions [{names}] on {resource}. "
        "Run `pachctl auth roles-for-permission` to find roles that grant a given permission."
    )


def may(txn: Snapshot, principal: str, resource: Resource, permissions: Collection[int]) -> bool:
    """Return whether a principal has all these permissions; nobody but an admin has any on what is not there."""
    try:
        return not authorize(txn, principal, resource, permissions).missing
    except NoRoleBinding:
        return False


def of(txn: Snapshot, principal: str, resource: Resource) -> Grants:
    """Return everything that a principal may do to a resource; errors as for `authorize`."""
    return authorize(txn, principal, resource, auth_pb2.Permission.values())
