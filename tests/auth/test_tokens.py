"""Tokens that expire and are revoked, groups, and asking what one may do."""

import time

import pytest

from pachd.client import RpcError
from pachd.proto import auth_pb2, pfs_pb2
from pachd.proto.auth_pb2 import Permission as P
from tests.auth.conftest import Guarded
from tests.auth.helpers import create, refused


def test_tokens_expire_and_are_revoked(guarded: Guarded) -> None:
    for ttl in (1, 4, 16, 64):  # longer where the machine is busy with other things
        now = time.time()
        brief = guarded.robot("brief", ttl=ttl)
        try:
            who = brief.auth.WhoAmI()
            break
        except RpcError as error:
            assert "token expiration is in the past" in str(error)
    assert who.username == "robot:brief" and now + ttl - 1 <= who.expiration.seconds <= time.time() + ttl
    time.sleep(max(0.0, who.expiration.seconds + 1.1 - time.time()))
    with pytest.raises(RpcError, match="token expiration is in the past"):
        brief.auth.WhoAmI()
    guarded.root.auth.DeleteExpiredAuthTokens()
    with pytest.raises(RpcError, match="provided auth token is corrupted or has expired"):
        brief.auth.WhoAmI()
    fired = guarded.robot("fired")
    refused(
        lambda: fired.auth.RevokeAuthTokensForUser(auth_pb2.RevokeAuthTokensForUserRequest(username="pach:root")),
        "CLUSTER_AUTH_REVOKE_USER_TOKENS",
        on="CLUSTER ",
    )
    gone = guarded.root.auth.RevokeAuthTokensForUser(auth_pb2.RevokeAuthTokensForUserRequest(username="robot:fired"))
    assert gone.number == 1
    with pytest.raises(RpcError, match="corrupted or has expired"):
        list(fired.pfs.ListRepo(pfs_pb2.ListRepoRequest()))


def test_authorize_and_groups(guarded: Guarded) -> None:
    create(guarded.root, "grouped")
    user = guarded.robot("member")
    resource = auth_pb2.Resource(type="REPO", name="default/grouped")
    request = auth_pb2.AuthorizeRequest(resource=resource, permissions=[P.REPO_READ, P.REPO_DELETE])
    reply = user.auth.Authorize(request)
    assert (reply.authorized, list(reply.satisfied), reply.principal) == (False, [], "robot:member")
    add = auth_pb2.ModifyMembersRequest(group="group:readers", add=["robot:member"])
    guarded.root.auth.ModifyMembers(add)
    guarded.bind("group:readers", "repoReader", repo="default/grouped")
    reply = user.auth.Authorize(request)
    assert (list(reply.satisfied), list(reply.missing)) == ([P.REPO_READ], [P.REPO_DELETE])
    assert list(user.auth.GetGroups().groups) == ["group:readers"]
    users = guarded.root.auth.GetUsers(auth_pb2.GetUsersRequest(group="group:readers"))
    assert list(users.usernames) == ["robot:member"]
