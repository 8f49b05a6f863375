"""A pachd with access control: the mount server acts with its token and never tells it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.client import Client
from pachd.proto import auth_pb2, pfs_pb2
from tests.processes import MountServer, Pachd

ROOT_TOKEN = uuid.uuid4().hex


@pytest.fixture(scope="module")
def pachd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pachd]:
    server = Pachd(tmp_path_factory.mktemp("auth") / "data")
    server.start()
    with Client(server.address) as client:
        client.auth.Activate(auth_pb2.ActivateRequest(root_token=ROOT_TOKEN))
    with Client(server.address, token=ROOT_TOKEN) as client:
        repo = pfs_pb2.Repo(name="secret", type="user", project=pfs_pb2.Project(name="default"))
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
        add = pfs_pb2.AddFile(path="/f")
        add.raw.value = b"hidden"
        requests = [pfs_pb2.ModifyFileRequest(set_commit=commit), pfs_pb2.ModifyFileRequest(add_file=add)]
        client.pfs.ModifyFile(requests)
    yield server
    server.stop()


@pytest.fixture
def server(pachd: Pachd, tmp_path: Path) -> Iterator[MountServer]:
    server = MountServer(tmp_path, pachd.address)
    try:
        yield server
        server.stop()
    finally:
        server.kill()
        server.unmount()


MOUNT = {"mounts": [{"name": "secret", "repo": "secret", "mode": "rw"}]}


def robot_token(pachd: Pachd, name: str, role: str = "") -> str:
    with Client(pachd.address, token=ROOT_TOKEN) as client:
        token = client.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot=name)).token
        if role:
            resource = auth_pb2.Resource(type=auth_pb2.REPO, name="default/secret")
            client.auth.ModifyRoleBinding(
                auth_pb2.ModifyRoleBindingRequest(resource=resource, principal=f"robot:{name}", roles=[role])
            )
    return str(token)


def test_logging_in_and_out(pachd: Pachd, server: MountServer) -> None:
    server.start()
    assert server.call("GET", "/config")[1]["cluster_status"] == "AUTH_ENABLED"
    assert server.call("PUT", "/_mount", MOUNT)[0] == 401
    assert server.call("PUT", "/auth/_login_token", {"token": "wrong"})[0] in (401, 403)
    assert server.call("PUT", "/auth/_login_token", {"oidc": "wrong"})[0] >= 400
    assert server.call("PUT", "/_mount", MOUNT)[0] == 401
    status, answer = server.call("PUT", "/auth/_login_token", {"token": ROOT_TOKEN})
    assert status == 200 and ROOT_TOKEN not in str(answer)
    assert server.call("PUT", "/_mount", MOUNT)[0] == 200
    assert {repo["authorization"] for repo in server.call("GET", "/repos")[1]} == {"write"}
    file = server.mount_dir / "secret" / "f"
    assert file.read_text() == "hidden"
    file.with_name("g").write_text("new")
    assert server.call("PUT", "/auth/_logout")[0] == 200, "what was staged is committed first"
    assert os.listdir(server.mount_dir) == []
    assert server.call("PUT", "/_mount", MOUNT)[0] == 401
    with Client(pachd.address, token=ROOT_TOKEN) as client:
        repo = pfs_pb2.Repo(name="secret", type="user", project=pfs_pb2.Project(name="default"))
        head = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
        listed = client.pfs.ListFile(pfs_pb2.ListFileRequest(file=pfs_pb2.File(commit=head, path="/")))
        assert {info.file.path for info in listed} == {"/f", "/g"}
    for path in server.state_dir.rglob("*"):
        assert not path.is_file() or ROOT_TOKEN.encode() not in path.read_bytes(), path
    assert ROOT_TOKEN not in server.text()


def test_a_token_file_and_rights(pachd: Pachd, server: MountServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(robot_token(pachd, "reader", "repoReader") + "\n")
    server.command += ["--pachd-token-file", str(token_file)]
    server.start()
    assert server.call("PUT", "/_mount", {"mounts": [{"name": "ro", "repo": "secret"}]})[0] == 200
    assert (server.mount_dir / "ro" / "f").read_text() == "hidden"
    assert server.call("PUT", "/_mount", MOUNT)[0] == 403
    # a right that is taken away later: nothing of what was written is lost
    with Client(pachd.address, token=ROOT_TOKEN) as client:
        resource = auth_pb2.Resource(type=auth_pb2.REPO, name="default/secret")
        for roles in (["repoWriter"], ["repoReader"]):
            request = auth_pb2.ModifyRoleBindingRequest(resource=resource, principal="robot:reader", roles=roles)
            client.auth.ModifyRoleBinding(request)
            if roles == ["repoWriter"]:
                assert server.call("PUT", "/_mount", MOUNT)[0] == 200
    file = server.mount_dir / "secret" / "h"
    file.write_text("kept")
    status, answer = server.call("PUT", "/_commit", {"mount": "secret"})
    assert (status, answer["code"]) == (403, "permission_denied"), answer
    assert file.read_text() == "kept"
    assert server.call("GET", "/_status?mount=secret")[1]["dirty_files"] == 1


def test_nobody_sees_nothing(pachd: Pachd, server: MountServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(robot_token(pachd, "nobody"))
    server.command += ["--pachd-token-file", str(token_file)]
    server.start()
    assert server.call("PUT", "/_mount", {"mounts": [{"name": "ro", "repo": "secret"}]})[0] == 403
    (repo,) = server.call("GET", "/repos")[1]
    assert repo["authorization"] == "none"
