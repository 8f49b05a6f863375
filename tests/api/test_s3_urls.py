"""Egress to S3, and files from it, against moto's server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.processes import Pachd, running
from tests.storage import bucket as s3
from tests.storage.bucket import Bucket

REPO = pfs_pb2.Repo(name="s3", type="user", project=pfs_pb2.Project(name="default"))
MASTER = pfs_pb2.Commit(repo=REPO, branch=pfs_pb2.Branch(repo=REPO, name="master"))
FILES = {"/a": b"1", "/d/b": b"22", "/d/empty": b"", "/d/large": os.urandom(20_000_000)}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3.running() as found:
        yield found


@pytest.fixture(scope="module")
def client(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    pachd = Pachd(Path(tmp_path_factory.mktemp("pachd")) / "data")
    pachd.env = {**s3.ENVIRONMENT, "AWS_ENDPOINT_URL": bucket.endpoint, "PACHD_URL_HOSTS": "localhost"}
    pachd.env |= {"MINIO_ID": "a", "MINIO_SECRET": "b"}
    with running(pachd), Client(pachd.address) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
        requests = [pfs_pb2.ModifyFileRequest(set_commit=MASTER)]
        for path, content in FILES.items():
            requests.append(pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw={"value": content})))
        client.pfs.ModifyFile(requests)
        yield client
        pachd.stop()


def put(client: Client, path: str, url: str, recursive: bool = False) -> None:
    source = pfs_pb2.AddFile.URLSource(URL=url, recursive=recursive)
    add = pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, url=source))
    client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=MASTER), add])


def get(client: Client, path: str) -> bytes:
    request = pfs_pb2.GetFileRequest(file=pfs_pb2.File(commit=MASTER, path=path))
    return b"".join(message.value for message in client.pfs.GetFile(request))


def test_egress_and_back(client: Client, bucket: Bucket) -> None:
    request = pfs_pb2.EgressRequest(commit=MASTER, object_storage={"url": "s3://data/out/"})
    assert client.pfs.Egress(request).object_storage.bytes_written == sum(map(len, FILES.values()))
    assert bucket.objects() == {f"out{path}": len(content) for path, content in FILES.items()}
    body = bucket.client().get_object(Bucket="data", Key="out/d/large")["Body"].read()
    assert body == FILES["/d/large"]
    put(client, "/back", "s3://data/out/d", recursive=True)
    assert {name: get(client, f"/back/{name}") for name in ("b", "empty", "large")} == {
        name: FILES[f"/d/{name}"] for name in ("b", "empty", "large")
    }
    put(client, "/one", "s3://data/out/a")
    assert get(client, "/one") == b"1"


def test_minio_urls_name_their_host(client: Client, bucket: Bucket) -> None:
    put(client, "/minio", f"minio://localhost:{bucket.port}/data/out/d/b")
    assert get(client, "/minio") == b"22"


def test_what_is_not_there(client: Client) -> None:
    for url in ("s3://data/nope", "s3://nope/a"):
        with pytest.raises(RpcError, match="error reading"):
            put(client, "/x", url)
    with pytest.raises(RpcError, match="error writing"):
        client.pfs.Egress(pfs_pb2.EgressRequest(commit=MASTER, object_storage={"url": "s3://nope/a"}))
