"""How access control is switched on, and how the programs beside pachd pass their token."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import auth_pb2, pfs_pb2
from tests.auth.conftest import ROOT_TOKEN, Guarded
from tests.auth.helpers import create, head, put, refused
from tests.processes import ROOT, MountServer, Pachd, free_port, running


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, **env},
    )


def test_the_command_line_passes_a_token(guarded: Guarded) -> None:
    create(guarded.root, "asked")
    put(guarded.root, "asked", "/a")
    ask = ("howdah", "lineage", "asked@master", "--json", "--pachd-address", guarded.server.address)
    without = run(*ask)
    assert without.returncode == 1 and "no authentication token" in without.stderr and "PACH_TOKEN" in without.stderr
    for answer in (run(*ask, "--token", ROOT_TOKEN), run(*ask, PACH_TOKEN=ROOT_TOKEN)):
        assert answer.returncode == 0, answer.stderr
        assert "asked" in answer.stdout


def test_the_mount_server_passes_a_token(guarded: Guarded, tmp_path: Path) -> None:
    create(guarded.root, "mounted")
    put(guarded.root, "mounted", "/a.txt", b"hello")
    token = tmp_path / "token"
    token.write_text(f"{ROOT_TOKEN}\n")
    server = MountServer(tmp_path / "mount", guarded.server.address)
    server.command += ["--pachd-token-file", str(token), "-r", "mounted@master+w"]
    with running(server):
        assert (server.mount_dir / "mounted" / "a.txt").read_text() == "hello"
        (server.mount_dir / "mounted" / "b.txt").write_text("from the mount")
        status, body = server.call("PUT", "/_commit", {"mount": "mounted"})
        assert status == 200 and body["commit"]["files_added"] == 1, body
        server.stop()
    info = guarded.root.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("mounted")))
    assert info.created_by == "pach:root"


def test_a_token_file_switches_access_control_on_and_keeps_it_on(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server):  # what was there before
        with Client(server.address, timeout=30) as client:
            create(client, "old")
        server.stop()
        token = tmp_path / "token"
        token.write_text("first")
        server.command += ["--token-file", str(token)]
        server.start()
        with Client(server.address, timeout=30) as stranger, pytest.raises(RpcError, match="no authentication token"):
            create(stranger, "new")
        with Client(server.address, token="first", timeout=30) as root:
            assert root.auth.WhoAmI().username == "pach:root"
            robot = root.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot="r")).token
            with Client(server.address, token=robot, timeout=30) as user:
                create(user, "new")
                refused(lambda: put(user, "old", "/a"), "REPO_WRITE", on="REPO default/old")
            with pytest.raises(RpcError, match="was started with its root token"):
                root.auth.Deactivate()
            with pytest.raises(RpcError, match="is disabled when the root token is configured"):
                root.auth.RotateRootToken()
        server.stop()
        token.write_text("second")  # a new root token; the robot's stays
        server.start()
        with Client(server.address, token="first", timeout=30) as root, pytest.raises(RpcError, match="corrupted"):
            root.auth.WhoAmI()
        for known, name in (("second", "pach:root"), (robot, "robot:r")):
            with Client(server.address, token=known, timeout=30) as client:
                assert client.auth.WhoAmI().username == name
        server.stop()
        server.command = server.command[:-2]  # active all the same
        server.start()
        with Client(server.address, token="second", timeout=30) as root:
            root.auth.Deactivate()
            with pytest.raises(RpcError, match="the auth service is not activated"):
                root.auth.WhoAmI()
            create(root, "free")


@pytest.mark.parametrize("how", ["nothing", "empty token file"])
def test_listening_for_strangers_is_refused(tmp_path: Path, how: str) -> None:
    more = []
    if how == "empty token file":
        (tmp_path / "token").touch()
        more = ["--token-file", str(tmp_path / "token")]
    done = run("pachd", "--data", str(tmp_path / "data"), "--address", f"0.0.0.0:{free_port()}", *more)
    assert done.returncode == 1
    assert ("is empty" if more else "can be reached from other machines") in done.stderr
    assert "Traceback" not in done.stderr


def test_listening_for_strangers_can_be_asked_for(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    server.command[server.command.index("--address") + 1] = f"0.0.0.0:{server.port}"
    server.command.append("--insecure")
    with running(server), Client(server.address, timeout=30) as client:
        create(client, "open")
