"""One of Pachyderm's Python clients over TLS with a token, run in its own environment: prints what it saw as JSON.

usage: tls_steps.py python-pachyderm|pachyderm-sdk PORT CA_FILE, the token in STEPS_TOKEN
"""

import json
import os
import sys

import grpc

which, port, ca_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
token = os.environ["STEPS_TOKEN"]
with open(ca_file, "rb") as file:
    roots = file.read()
seen = {}


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


if which == "python-pachyderm":
    import python_pachyderm

    def connect(auth_token=None):
        return python_pachyderm.Client(host="localhost", port=port, auth_token=auth_token, root_certs=roots, tls=True)

    client = connect(token)
    seen["who"] = client.who_am_i().username
    client.create_repo("tls-pp")
    with client.commit("tls-pp", "master") as commit:
        client.put_file_bytes(commit, "/a", b"hello")
    client.wait_commit(commit)
    seen["read"] = client.get_file(("tls-pp", "master"), "/a").read().decode()
    seen["stranger"] = code(lambda: connect().create_repo("tls-no"))
else:
    from pachyderm_sdk import Client
    from pachyderm_sdk.api import pfs

    def connect(auth_token=None):
        return Client(host="localhost", port=port, auth_token=auth_token, root_certs=roots, tls=True)

    client = connect(token)
    seen["who"] = client.auth.who_am_i().username
    repo = pfs.Repo(name="tls-sdk", type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=repo)
    branch = pfs.Branch(repo=repo, name="master")
    with client.pfs.commit(branch=branch) as commit:
        commit.put_file_from_bytes("/a", b"hello")
    client.pfs.wait_commit(commit)
    with client.pfs.pfs_file(pfs.File(commit=commit, path="/a")) as file:
        seen["read"] = file.read().decode()
    seen["stranger"] = code(lambda: list(connect().pfs.list_repo()))

print(json.dumps(seen))
