"""auth_v2: access control, and identity_v2 of a server that has no identity provider."""

from typing import Any

from google.protobuf import descriptor_pool
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from pachd.api.errors import to_grpc
from pachd.api.service import Call, Service, read, write
from pachd.auth import activation, bindings, groups, permissions, roles, tokens
from pachd.auth.bindings import NotActivated
from pachd.auth.resources import Resource, type_name
from pachd.auth.subjects import PACH, check_subject
from pachd.errors import FailedPrecondition, PachError, Unimplemented
from pachd.pps import access
from pachd.proto import auth_pb2, identity_pb2
from pachd.proto.auth_pb2 import CLUSTER, PROJECT, REPO
from pachd.proto.auth_pb2 import Permission as P
from pachd.store import Snapshot, Txn

_MODIFY: dict[int, int] = {
    CLUSTER: P.CLUSTER_MODIFY_BINDINGS,
    PROJECT: P.PROJECT_MODIFY_BINDINGS,
    REPO: P.REPO_MODIFY_BINDINGS,
}
_NO_PROVIDER = "this pachd has no identity provider: sign in with a token (pachctl auth use-auth-token)"
_NOT_CONFIGURED = "OIDC ID provider configuration not found"


class Switch:
    """Activate, Deactivate, RotateRootToken, the configuration."""

    context: Any

    @write()
    def Activate(self, txn: Txn, request: auth_pb2.ActivateRequest, call: Call) -> Any:
        """Switch access control on for everything at once: python-pachyderm does not ask pfs and pps to follow."""
        if bindings.active(txn):  # that it is on already is told to whoever is signed in
            tokens.identify(txn, call.metadata.get("authn-token"))
        token = activation.activate(txn, request.root_token)
        activation.activate_repos(txn)
        access.connect_all(txn)
        txn.after_commit(self.context.guard.refresh)
        return auth_pb2.ActivateResponse(pach_token=token)

    @write()
    def Deactivate(self, txn: Txn, request: auth_pb2.DeactivateRequest, call: Call) -> Any:
        if self.context.guard.pinned:
            raise FailedPrecondition(
                "this pachd was started with its root token: start it without --token-file to switch access control off"
            )
        activation.deactivate(txn)
        txn.after_commit(self.context.guard.refresh)
        return auth_pb2.DeactivateResponse()

    @write()
    def RotateRootToken(self, txn: Txn, request: auth_pb2.RotateRootTokenRequest, call: Call) -> Any:
        if self.context.guard.pinned:
            raise PachError("RotateRootToken() is disabled when the root token is configured in the environment")
        return auth_pb2.RotateRootTokenResponse(root_token=tokens.rotate_root(txn, request.root_token))

    @read
    def GetConfiguration(self, snapshot: Snapshot, request: auth_pb2.GetConfigurationRequest, call: Call) -> Any:
        reply = auth_pb2.GetConfigurationResponse()
        reply.configuration.SetInParent()
        return reply

    @read
    def SetConfiguration(self, snapshot: Snapshot, request: auth_pb2.SetConfigurationRequest, call: Call) -> Any:
        if request.HasField("configuration"):  # without one, there is none again
            raise PachError(f"provided OIDC issuer does not implement OIDC protocol: {_issuer(request.configuration)}")
        return auth_pb2.SetConfigurationResponse()

    @read
    def GetOIDCLogin(self, snapshot: Snapshot, request: auth_pb2.GetOIDCLoginRequest, call: Call) -> Any:
        raise PachError(_NOT_CONFIGURED)

    @read
    def Authenticate(self, snapshot: Snapshot, request: auth_pb2.AuthenticateRequest, call: Call) -> Any:
        bindings.require_active(snapshot)
        if not (request.oidc_state or request.id_token):
            raise PachError("unrecognized authentication mechanism (old pachd?)")
        raise PachError(_NOT_CONFIGURED)


class Callers:
    """WhoAmI, tokens, groups."""

    @read
    def WhoAmI(self, snapshot: Snapshot, request: auth_pb2.WhoAmIRequest, call: Call) -> Any:
        caller = tokens.identify(snapshot, call.metadata.get("authn-token"))
        reply = auth_pb2.WhoAmIResponse(username=caller.subject)
        if caller.expiration is not None:
            reply.expiration.FromNanoseconds(caller.expiration)
        return reply

    @write()
    def GetRobotToken(self, txn: Txn, request: auth_pb2.GetRobotTokenRequest, call: Call) -> Any:
        return auth_pb2.GetRobotTokenResponse(token=tokens.make_robot(txn, request.robot, request.ttl))

    @write()
    def RevokeAuthToken(self, txn: Txn, request: auth_pb2.RevokeAuthTokenRequest, call: Call) -> Any:
        return auth_pb2.RevokeAuthTokenResponse(number=tokens.revoke(txn, request.token))

    @write()
    def RevokeAuthTokensForUser(self, txn: Txn, request: auth_pb2.RevokeAuthTokensForUserRequest, call: Call) -> Any:
        return auth_pb2.RevokeAuthTokensForUserResponse(number=tokens.revoke_user(txn, request.username))

    @read
    def ExtractAuthTokens(self, snapshot: Snapshot, request: auth_pb2.ExtractAuthTokensRequest, call: Call) -> Any:
        return auth_pb2.ExtractAuthTokensResponse(tokens=tokens.extract(snapshot))

    @write()
    def RestoreAuthToken(self, txn: Txn, request: auth_pb2.RestoreAuthTokenRequest, call: Call) -> Any:
        tokens.restore(txn, request.token)
        return auth_pb2.RestoreAuthTokenResponse()

    @write()
    def DeleteExpiredAuthTokens(self, txn: Txn, request: auth_pb2.DeleteExpiredAuthTokensRequest, call: Call) -> Any:
        tokens.delete_expired(txn)
        return auth_pb2.DeleteExpiredAuthTokensResponse()

    @write()
    def SetGroupsForUser(self, txn: Txn, request: auth_pb2.SetGroupsForUserRequest, call: Call) -> Any:
        groups.set_groups(txn, request.username, request.groups)
        return auth_pb2.SetGroupsForUserResponse()

    @write()
    def ModifyMembers(self, txn: Txn, request: auth_pb2.ModifyMembersRequest, call: Call) -> Any:
        groups.modify_members(txn, request.group, request.add, request.remove)
        return auth_pb2.ModifyMembersResponse()

    @read
    def GetGroups(self, snapshot: Snapshot, request: auth_pb2.GetGroupsRequest, call: Call) -> Any:
        return auth_pb2.GetGroupsResponse(groups=groups.groups_of(snapshot, call.principal))

    @read
    def GetGroupsForPrincipal(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        return auth_pb2.GetGroupsResponse(groups=groups.groups_of(snapshot, request.principal))

    @read
    def GetUsers(self, snapshot: Snapshot, request: auth_pb2.GetUsersRequest, call: Call) -> Any:
        return auth_pb2.GetUsersResponse(usernames=groups.users(snapshot, request.group))


class Rights:
    """Role bindings and permissions."""

    @write()
    def ModifyRoleBinding(self, txn: Txn, request: auth_pb2.ModifyRoleBindingRequest, call: Call) -> Any:
        resource = Resource.of(request.resource)
        check_subject(request.principal)
        if request.principal.startswith(PACH) and resource.type == CLUSTER:
            raise PachError("cannot modify cluster role bindings for pach: users")
        permission = _MODIFY.get(resource.type)
        if permission is None:
            raise PachError(f"unknown resource type {type_name(resource.type)}")
        permissions.require(txn, call.principal, resource, permission)
        bindings.set_roles(txn, resource, request.principal, request.roles)
        return auth_pb2.ModifyRoleBindingResponse()

    @read
    def GetRoleBinding(self, snapshot: Snapshot, request: auth_pb2.GetRoleBindingRequest, call: Call) -> Any:
        reply = auth_pb2.GetRoleBindingResponse()
        reply.binding.SetInParent()
        for principal, names in bindings.binding(snapshot, Resource.of(request.resource)).items():
            for name in names:
                reply.binding.entries[principal].roles[name] = True
        return reply

    @read
    def Authorize(self, snapshot: Snapshot, request: auth_pb2.AuthorizeRequest, call: Call) -> Any:
        caller = tokens.identify(snapshot, call.metadata.get("authn-token"))
        found = permissions.authorize(snapshot, caller.subject, Resource.of(request.resource), request.permissions)
        return auth_pb2.AuthorizeResponse(
            authorized=not found.missing,
            satisfied=found.satisfied,  # type: ignore[arg-type]
            missing=found.missing,  # type: ignore[arg-type]
            principal=caller.subject,
        )

    @read
    def GetPermissions(self, snapshot: Snapshot, request: auth_pb2.GetPermissionsRequest, call: Call) -> Any:
        try:
            return _permissions(snapshot, call.principal, request)
        except PachError as error:
            raise error.wrapped("cannot get permissions for principal") from None

    @read
    def GetPermissionsForPrincipal(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        return _permissions(snapshot, request.principal, request)

    @read
    def GetRolesForPermission(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        reply = auth_pb2.GetRolesForPermissionResponse()
        for role in roles.granting(request.permission):
            reply.roles.add(
                name=role.name,
                permissions=role.permissions,
                can_be_bound_to=role.bound_to,
                returned_for=role.returned_for,
            )
        return reply


def _permissions(snapshot: Snapshot, principal: str, request: Any) -> auth_pb2.GetPermissionsResponse:
    try:
        found = permissions.of(snapshot, principal, Resource.of(request.resource))
    except PachError as error:
        raise error.wrapped("cannot evaluate role binding") from None
    return auth_pb2.GetPermissionsResponse(
        permissions=found.permissions_told(),  # type: ignore[arg-type]
        roles=found.roles_told(),
    )


def _issuer(configuration: auth_pb2.OIDCConfig) -> str:
    """Return why nobody can sign in by a configuration."""
    scheme, colon, _ = configuration.issuer.partition("://")
    if not colon or scheme not in ("http", "https"):
        url = configuration.issuer.removesuffix("/") + "/.well-known/openid-configuration"
        return f'Get "{url}": unsupported protocol scheme "{scheme if colon else ""}"'
    return _NO_PROVIDER


class Auth(Switch, Callers, Rights, Service):
    name = "auth_v2.API"


class Identity(Service):
    """There is no identity provider. While access control is off, each RPC says that instead."""

    name = "identity_v2.API"

    def __mapping__(self) -> dict[str, Handler]:
        service = descriptor_pool.Default().FindServiceByName(self.name)
        missing = Handler(self._refuse, Cardinality.STREAM_STREAM, bytes, bytes)
        return {f"/{self.name}/{m.name}": missing for m in service.methods} | super().__mapping__()

    async def _refuse(self, stream: "Stream[bytes, bytes]") -> None:
        error: PachError = Unimplemented(_NO_PROVIDER) if self.context.guard.active else NotActivated()
        raise to_grpc(error, self.name)

    async def DeleteAll(self, call: Call) -> None:
        """Delete nothing: nothing is kept. python-pachyderm's `delete_all` calls it first."""
        await call.request()
        await call.reply(identity_pb2.DeleteAllResponse())


SERVICES = [Auth, Identity]
