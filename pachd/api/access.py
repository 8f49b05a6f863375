"""What a rule of access control is, and the eyes it looks with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pachd.auth import permissions, tokens
from pachd.auth.resources import THE_CLUSTER, Resource
from pachd.errors import PachError
from pachd.proto import pfs_pb2
from pachd.store import Snapshot


class Access:
    """The rights of one caller, as they are in one snapshot.

    :param token: what the caller sent; None: nothing.
    """

    def __init__(self, snapshot: Snapshot, token: str | None, principal: str = "") -> None:
        self.snapshot = snapshot
        self._token = token
        self._principal = principal

    @property
    def principal(self) -> str:
        """Who calls. Raises Unauthenticated, or what else is wrong with the token."""
        if not self._principal:
            self._principal = tokens.identify(self.snapshot, self._token).subject
        return self._principal

    def need(self, resource: Resource | None, *wanted: int, told: str = "") -> None:
        """Raise NotAuthorized unless the caller has the permissions `wanted`; no resource: none is needed.

        :param told: words before those of the error.
        """
        if resource is None:
            return
        try:
            permissions.require(self.snapshot, self.principal, resource, *wanted)
        except PachError as error:
            if not told:
                raise
            raise error.wrapped(told) from None

    def need_cluster(self, *wanted: int, told: str = "") -> None:
        """The same for the cluster."""
        self.need(THE_CLUSTER, *wanted, told=told)

    def may(self, resource: Resource, *wanted: int) -> bool:
        """Return whether the caller has the permissions `wanted`."""
        return permissions.may(self.snapshot, self.principal, resource, wanted)

    def info(self, resource: Resource, told: str) -> pfs_pb2.AuthInfo:
        """Return what the caller may do to a resource; `told` goes before the words of an error."""
        try:
            found = permissions.of(self.snapshot, self.principal, resource)
        except PachError as error:
            raise error.wrapped(told) from None
        return pfs_pb2.AuthInfo(
            permissions=found.permissions_told(),  # type: ignore[arg-type]
            roles=found.roles_told(),
        )


Check = Callable[[Access, Any], None]
Show = Callable[[Access, Any, Any], Any]


@dataclass(frozen=True)
class Rule:
    """Who may call an RPC.

    `gate`: None: everybody; (): whoever has a token; else who has these permissions on the cluster. `check(access,
    request)` raises when the request is about something that the caller may not touch. `show(access, request, reply)`
    returns a reply as this caller may see it, None to leave it out. `denied()`: the answer in place of a refusal.
    `only_active`: while access control is off, the RPC says so.
    """

    gate: tuple[int, ...] | None = ()
    check: Check | None = None
    show: Show | None = None
    denied: Callable[[], Message] | None = None
    only_active: bool = False
