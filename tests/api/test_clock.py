"""A branch that moves by the clock, on a real server, also after it was killed."""

import time
from pathlib import Path

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import Pachd, running

REPO = pfs_pb2.Repo(name="clock", type="user", project=pfs_pb2.Project(name="default"))


def branch(name: str) -> pfs_pb2.Branch:
    return pfs_pb2.Branch(repo=REPO, name=name)


def put(client: Client) -> str:
    target = pfs_pb2.Commit(repo=REPO, branch=branch("staged"))
    add = pfs_pb2.AddFile(path="/f", raw={"value": b"x"})
    client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=target), pfs_pb2.ModifyFileRequest(add_file=add)])
    return head(client, "staged")


def head(client: Client, name: str) -> str:
    return client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch(name))).head.id


def follows(client: Client, id: str) -> bool:
    deadline = time.monotonic() + 120
    while head(client, "live") != id and time.monotonic() < deadline:
        time.sleep(0.05)
    return head(client, "live") == id


def test_a_branch_moves_by_the_clock(tmp_path: Path) -> None:
    pachd = Pachd(tmp_path / "data")
    with running(pachd):
        with Client(pachd.address) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
            put(client)
            trigger = pfs_pb2.Trigger(branch="staged", cron_spec="@every 1s")
            client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=branch("live"), trigger=trigger))
            assert follows(client, put(client))
        pachd.kill()
        pachd.start()
        with Client(pachd.address) as client:
            assert follows(client, put(client))
        assert pachd.stop() == 0
        assert "Traceback" not in pachd.text()
