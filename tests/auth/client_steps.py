"""Access control from activation to deactivation with one of Pachyderm's Python clients, in its own environment.

usage: client_steps.py python-pachyderm|pachyderm-sdk PORT; prints what it saw as JSON
"""

import json
import sys

import grpc

which, port = sys.argv[1], int(sys.argv[2])
seen = {}


def error(call):
    """What a call fails with: code and words, or the name of the client's own error."""
    try:
        call()
    except grpc.RpcError as e:
        return [e.code().name, e.details()]
    except Exception as e:
        return type(e).__name__
    return "OK"


if which == "python-pachyderm":
    import python_pachyderm
    from python_pachyderm.proto.v2.auth import auth_pb2

    def connect(auth_token=None):
        return python_pachyderm.Client(host="127.0.0.1", port=port, auth_token=auth_token)

    seen["before"] = error(lambda: connect().who_am_i())
    root = connect(connect().activate_auth("the-root"))
    seen["root"] = root.who_am_i().username
    root.create_repo("guarded")
    token = root.get_robot_token("alice")
    alice = connect(token)
    seen["robot"] = alice.who_am_i().username
    seen["refused"] = error(lambda: list(alice.list_file(("guarded", "master"), "/")))
    resource = auth_pb2.Resource(type=auth_pb2.REPO, name="default/guarded")
    root.modify_role_binding(resource, "robot:alice", ["repoWriter"])
    seen["binding"] = {k: sorted(v.roles) for k, v in root.get_role_binding(resource).items()}
    with alice.commit("guarded", "master") as commit:
        alice.put_file_bytes(commit, "/a", b"hello")
    alice.wait_commit(commit)
    seen["read"] = alice.get_file(("guarded", "master"), "/a").read().decode()
    seen["may"] = alice.authorize(resource, [auth_pb2.Permission.REPO_WRITE]).authorized
    seen["roles"] = sorted(role.name for role in root.get_roles_for_permission(auth_pb2.Permission.REPO_WRITE))
    root.revoke_auth_token(token)
    seen["revoked"] = error(alice.who_am_i)
    root.deactivate_auth()
    connect().create_repo("free")
    seen["after"] = sorted(info.repo.name for info in connect().list_repo())
else:
    from pachyderm_sdk import Client
    from pachyderm_sdk.api import auth, pfs

    def connect(auth_token=None):
        return Client(host="127.0.0.1", port=port, auth_token=auth_token)

    def repo(name):
        return pfs.Repo(name=name, type="user", project=pfs.Project(name="default"))

    seen["before"] = error(connect().auth.who_am_i)
    root = connect(connect().auth.activate(root_token="the-root").pach_token)
    seen["root"] = root.auth.who_am_i().username
    root.pfs.activate_auth()
    root.pfs.create_repo(repo=repo("guarded"))
    alice = connect(root.auth.get_robot_token(robot="alice").token)
    seen["robot"] = alice.auth.who_am_i().username
    branch = pfs.Branch(repo=repo("guarded"), name="master")
    top = pfs.File(commit=pfs.Commit(branch=branch, repo=repo("guarded")), path="/")
    seen["refused"] = error(lambda: list(alice.pfs.list_file(file=top)))
    resource = auth.Resource(type=auth.ResourceType.REPO, name="default/guarded")
    root.auth.modify_role_binding(resource=resource, principal="robot:alice", roles=["repoWriter"])
    entries = root.auth.get_role_binding(resource=resource).binding.entries
    seen["binding"] = {k: sorted(v.roles) for k, v in entries.items()}
    with alice.pfs.commit(branch=branch) as commit:
        commit.put_file_from_bytes("/a", b"hello")
    alice.pfs.wait_commit(commit)
    with alice.pfs.pfs_file(pfs.File(commit=commit, path="/a")) as file:
        seen["read"] = file.read().decode()
    seen["may"] = alice.auth.authorize(resource=resource, permissions=[auth.Permission.REPO_WRITE]).authorized
    found = root.auth.get_roles_for_permission(permission=auth.Permission.REPO_WRITE).roles
    seen["roles"] = sorted(role.name for role in found)
    root.auth.revoke_auth_tokens_for_user(username="robot:alice")
    seen["revoked"] = error(alice.auth.who_am_i)
    root.auth.deactivate()
    connect().pfs.create_repo(repo=repo("free"))
    seen["after"] = sorted(info.repo.name for info in connect().pfs.list_repo())

print(json.dumps(seen))
