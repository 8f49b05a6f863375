"""Commits of many changes over the wire: their trees are made while others write."""

import threading
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.wrappers_pb2 import BytesValue

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.processes import Pachd, running

REPO = pfs_pb2.Repo(name="large", type="user", project=pfs_pb2.Project(name="default"))
MASTER = pfs_pb2.Commit(repo=REPO, branch=pfs_pb2.Branch(repo=REPO, name="master"))
COUNT = 22_000  # with names of this length: more bytes of operations than are applied in one go


def stream(commit: pfs_pb2.Commit, folder: str, count: int) -> Iterator[pfs_pb2.ModifyFileRequest]:
    yield pfs_pb2.ModifyFileRequest(set_commit=commit)
    for n in range(count):
        path = f"/{folder}/{'long' * 50}/{n * 7919 % count:06d}"
        yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw=BytesValue(value=b"%d" % n)))


def files(client: Client, commit: pfs_pb2.Commit) -> int:
    request = pfs_pb2.WalkFileRequest(file=pfs_pb2.File(commit=commit, path="/"))
    return sum(info.file_type == pfs_pb2.FILE for info in client.pfs.WalkFile(request))


def inspect(client: Client, commit: pfs_pb2.Commit) -> pfs_pb2.CommitInfo:
    info: pfs_pb2.CommitInfo = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=commit))
    return info


def test_beside_other_writers_of_the_same_branch(tmp_path: Path) -> None:
    with running(Pachd(tmp_path / "data")) as pachd, Client(pachd.address, timeout=300) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
        ended = threading.Event()
        written = 0

        def write() -> None:
            nonlocal written
            with Client(pachd.address, timeout=300) as other:
                while not ended.is_set():
                    other.pfs.ModifyFile(list(stream(MASTER, f"small{written}", 1)))
                    written += 1

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            client.pfs.ModifyFile(list(stream(MASTER, "large", COUNT)))
        finally:
            ended.set()
            thread.join()
        assert written
        assert files(client, MASTER) == COUNT + written
        assert inspect(client, MASTER).HasField("finished")
        pachd.stop()
        assert pachd.fsck().returncode == 0, pachd.text()


def test_killed_while_a_commit_finishes(tmp_path: Path) -> None:
    with running(Pachd(tmp_path / "data")) as pachd:
        with Client(pachd.address, timeout=300) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
            client.pfs.ModifyFile(list(stream(MASTER, "before", 1)))
            commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=MASTER.branch))
            commit.ClearField("branch")
            client.pfs.ModifyFile(list(stream(commit, "large", COUNT)))
        for moment in (0.0, 0.2, 0.6):
            finish = threading.Thread(target=finish_somehow, args=(pachd.address, commit), daemon=True)
            finish.start()
            finish.join(moment)
            pachd.kill()
            finish.join()
            pachd.start()
        with Client(pachd.address, timeout=300) as client:
            info = inspect(client, commit)
            if not info.HasField("finished"):
                assert not info.HasField("finishing")
                client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
                info = inspect(client, commit)
            assert info.HasField("finished") and not info.error
            assert files(client, commit) == COUNT + 1
            client.pfs.ModifyFile(list(stream(MASTER, "child", 1)))
            assert files(client, MASTER) == COUNT + 2
        pachd.stop()
        assert pachd.fsck().returncode == 0, pachd.text()


def finish_somehow(address: str, commit: pfs_pb2.Commit) -> None:
    try:
        with Client(address, timeout=300) as client:
            client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
    except RpcError:
        pass  # killed meanwhile, or finished before
