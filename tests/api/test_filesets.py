"""File sets made of parts of others, over the wire."""

from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, storage_pb2
from tests.processes import Pachd, running

REPO = pfs_pb2.Repo(name="sets", type="user", project=pfs_pb2.Project(name="default"))
MASTER = pfs_pb2.Commit(repo=REPO, branch=pfs_pb2.Branch(repo=REPO, name="master"))


def files(client: Client, file_set: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for message in client.storage.ReadFileset(storage_pb2.ReadFilesetRequest(fileset_id=file_set)):
        found[message.path] = found.get(message.path, b"") + message.data.value
    return found


def create(client: Client, *requests: storage_pb2.CreateFilesetRequest) -> str:
    return str(client.storage.CreateFileset(list(requests)).fileset_id)


def append(path: str, data: bytes) -> storage_pb2.CreateFilesetRequest:
    return storage_pb2.CreateFilesetRequest(append_file={"path": path, "data": {"value": data}})


def copy(file_set: str, src: str, dst: str = "") -> storage_pb2.CreateFilesetRequest:
    return storage_pb2.CreateFilesetRequest(copy_file={"fileset_id": file_set, "src": src, "dst": dst})


def test_copies_from_file_sets(tmp_path: Path) -> None:
    with running(Pachd(tmp_path / "data")) as pachd, Client(pachd.address) as client:
        large = b"x" * 3_000_000
        first = create(client, append("/a", b"1"), append("/d/b", b"2"), append("/d/large", large))
        second = create(client, append("/a", b"old"), copy(first, "/a"), copy(first, "/d", "/e"))
        assert files(client, second) == {"/a": b"1", "/e/b": b"2", "/e/large": large}
        with pytest.raises(RpcError, match="path does not exist"):
            create(client, copy("0" * 32, "/a"))
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
        place = pfs_pb2.Repo(name="__filesets__", type="user", project=pfs_pb2.Project(name="default"))
        source = pfs_pb2.File(commit=pfs_pb2.Commit(repo=place, id=second), path="/e/")
        client.pfs.ModifyFile(
            [
                pfs_pb2.ModifyFileRequest(set_commit=MASTER),
                pfs_pb2.ModifyFileRequest(copy_file=pfs_pb2.CopyFile(dst="/in", src=source)),
            ]
        )
        got = client.pfs.GetFile(pfs_pb2.GetFileRequest(file=pfs_pb2.File(commit=MASTER, path="/in/large")))
        assert b"".join(message.value for message in got) == large
        pachd.stop()
        assert pachd.fsck().returncode == 0
