"""A real pachd asked over the wire: by our client, and by grpcio where the bytes matter."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError, parse_ref
from pachd.proto import admin_pb2, auth_pb2, pfs_pb2, transaction_pb2
from tests.processes import Pachd


@pytest.fixture
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address, timeout=60) as c:
        yield c


@pytest.fixture
def raw(pachd_process: Pachd) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(pachd_process.address) as channel:
        yield channel


def _repo(client: Client, name: str) -> pfs_pb2.Repo:
    repo = parse_ref(name).commit.repo
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
    return repo


def _put(ref: str, files: dict[str, bytes]) -> Iterator[pfs_pb2.ModifyFileRequest]:
    yield pfs_pb2.ModifyFileRequest(set_commit=parse_ref(ref).commit)
    for path, data in files.items():
        yield pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path))
        yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw={"value": data}))


def _get(client: Client, ref: str) -> bytes:
    return b"".join(m.value for m in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=parse_ref(ref))))


def test_put_and_get(client: Client) -> None:
    _repo(client, "one")
    client.pfs.ModifyFile(_put("one", {"/a": b"hello", "/empty": b"", "/d/b": b"x" * 3_000_000}))
    assert _get(client, "one:/a") == b"hello"
    assert _get(client, "one:/d/b") == b"x" * 3_000_000
    assert _get(client, "one:/empty") == b""
    listed = client.pfs.ListFile(pfs_pb2.ListFileRequest(file=parse_ref("one:/")))
    assert [f.file.path for f in listed] == ["/a", "/d/", "/empty"]


def test_a_stream_is_all_or_nothing(client: Client) -> None:
    _repo(client, "atomic")
    requests = [*_put("atomic", {"/good": b"1"}), *list(_put("atomic", {"/bad*": b"2"}))[1:]]
    with pytest.raises(RpcError, match="globbing character"):
        client.pfs.ModifyFile(requests)
    commits = client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=parse_ref("atomic").commit.repo))
    assert list(commits) == []


def test_an_abandoned_stream_leaves_nothing(client: Client) -> None:
    repo = _repo(client, "abandoned")

    def broken() -> Iterator[pfs_pb2.ModifyFileRequest]:
        yield from _put("abandoned", {"/a": b"x" * 100_000})
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        client.pfs.ModifyFile(broken())
    assert list(client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo))) == []


def test_errors_have_a_status_and_a_sentence(client: Client) -> None:
    with pytest.raises(RpcError) as caught:
        client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=parse_ref("nope").commit.repo))
    assert (caught.value.code, str(caught.value)) == (Status.NOT_FOUND, "repo default/nope not found")
    with pytest.raises(RpcError) as caught:
        client.auth.WhoAmI(auth_pb2.WhoAmIRequest())
    assert (caught.value.code, str(caught.value)) == (Status.UNIMPLEMENTED, "the auth service is not activated")
    with pytest.raises(RpcError, match="invalid DeleteBranchRequest.Branch: value is required") as caught:
        client.pfs.DeleteBranch(pfs_pb2.DeleteBranchRequest())
    assert caught.value.code is Status.INVALID_ARGUMENT


def test_what_is_not_there_says_so(raw: grpc.Channel) -> None:
    for method in ("/snapshot.API/CreateSnapshot", "/pfs_v2.API/CheckStorage", "/nonsense", "/a/b/c"):
        with pytest.raises(grpc.RpcError) as caught:
            raw.unary_unary(method)(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert method.rsplit("/", 1)[1] in caught.value.details()


def test_bytes_that_are_no_message_do_no_harm(raw: grpc.Channel, client: Client) -> None:
    for data in (b"\xff\xff\xff", b"\x0a\x05ab", os.urandom(200)):
        for method in ("/pfs_v2.API/CreateRepo", "/pfs_v2.API/ListFile", "/transaction_v2.API/BatchTransaction"):
            with pytest.raises(grpc.RpcError) as caught:
                list(raw.unary_stream(method)(data, timeout=60))
            assert caught.value.code() is not grpc.StatusCode.UNAVAILABLE
    assert client.version.GetVersion().major == 2


def test_gzip_is_accepted(pachd_process: Pachd) -> None:
    with grpc.insecure_channel(pachd_process.address, compression=grpc.Compression.Gzip) as channel:
        inspect = channel.unary_unary(
            "/admin_v2.API/InspectCluster",
            request_serializer=admin_pb2.InspectClusterRequest.SerializeToString,
            response_deserializer=admin_pb2.ClusterInfo.FromString,
        )
        assert inspect(admin_pb2.InspectClusterRequest(current_project={"name": "p" * 2000}), timeout=60).warnings_ok


def test_health(raw: grpc.Channel) -> None:
    assert raw.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60) == b"\x08\x01"


def test_waiting_clients_cost_no_threads(client: Client) -> None:
    """More waits and subscriptions than there are threads; then others are served, and all of them wake up."""
    repo = _repo(client, "waited")
    commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=pfs_pb2.Branch(repo=repo, name="master")))
    done: list[Any] = []

    def wait() -> None:
        request = pfs_pb2.InspectCommitRequest(commit=commit, wait=pfs_pb2.FINISHED)
        done.append(client.pfs.InspectCommit(request, timeout=280))

    def subscribe() -> None:
        request = pfs_pb2.SubscribeCommitRequest(repo=repo, branch="master", state=pfs_pb2.FINISHED)
        with client.pfs.SubscribeCommit(request, timeout=280) as replies:
            done.append(next(replies))

    threads = [threading.Thread(target=wait) for _ in range(30)] + [
        threading.Thread(target=subscribe) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # for most of them to be there
    client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo), timeout=100)
    assert done == []
    client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
    for thread in threads:
        thread.join(120)
    assert len(done) == 60
    assert all(info.commit.id == commit.id and info.HasField("finished") for info in done)


def test_closing_a_listing_early_frees_it(client: Client) -> None:
    _repo(client, "many")
    client.pfs.ModifyFile(_put("many", {f"/{i:05}": b"x" for i in range(5000)}))
    for _ in range(20):
        with client.pfs.WalkFile(pfs_pb2.WalkFileRequest(file=parse_ref("many:/"))) as files:
            assert next(files).file.path == "/"
    walked = client.pfs.WalkFile(pfs_pb2.WalkFileRequest(file=parse_ref("many:/")))
    assert sum(1 for _ in walked) == 5001


def test_a_transaction_is_executed_at_its_end(client: Client, raw: grpc.Channel) -> None:
    transaction = client.transaction.StartTransaction(transaction_pb2.StartTransactionRequest())
    repo = parse_ref("intxn").commit.repo
    inside = {"pach-transaction": transaction.id}
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo), metadata=inside)
    with pytest.raises(RpcError, match="not found"):
        client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo))
    client.transaction.FinishTransaction(transaction_pb2.FinishTransactionRequest(transaction=transaction))
    assert client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo)).repo.name == "intxn"
    # clients without a transaction send an empty one
    delete = raw.unary_unary("/pfs_v2.API/DeleteRepo", pfs_pb2.DeleteRepoRequest.SerializeToString)
    delete(pfs_pb2.DeleteRepoRequest(repo=repo), metadata=[("pach-transaction", "")], timeout=60)
    with pytest.raises(RpcError, match="repo default/intxn not found"):
        client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo))


def test_only_the_old_client_sees_the_branch_of_a_commit(
    client: Client, raw: grpc.Channel, pachd_process: Pachd
) -> None:
    _repo(client, "branchy")
    client.pfs.ModifyFile(_put("branchy", {"/a": b"1"}))
    request = pfs_pb2.InspectCommitRequest(commit=parse_ref("branchy").commit)
    assert not client.pfs.InspectCommit(request).commit.HasField("branch")
    options = [("grpc.primary_user_agent", "python-pachyderm")]
    with grpc.insecure_channel(pachd_process.address, options=options) as channel:
        inspect = channel.unary_unary(
            "/pfs_v2.API/InspectCommit",
            request_serializer=pfs_pb2.InspectCommitRequest.SerializeToString,
            response_deserializer=pfs_pb2.CommitInfo.FromString,
        )
        assert inspect(request, timeout=60).commit.branch.name == "master"


def test_a_second_pachd_on_the_folder_is_refused(pachd_process: Pachd) -> None:
    second = Pachd(pachd_process.data, log=pachd_process.log.with_name("second.log"))
    process = second.spawn()
    assert process.wait(240) == 1
    assert "in use by another pachd" in second.text()


def test_the_deployment_id_stays(tmp_path: Any) -> None:
    server = Pachd(tmp_path / "data")
    seen = set()
    for _ in range(2):
        server.start()
        with Client(server.address) as c:
            seen.add(c.admin.InspectCluster().deployment_id)
        assert server.stop() == 0
    assert len(seen) == 1
    assert server.fsck().returncode == 0


def test_unreachable() -> None:
    with pytest.raises(RpcError, match="127.0.0.1:1 cannot be reached") as caught:
        Client("127.0.0.1:1").version.GetVersion()
    assert caught.value.code is Status.UNAVAILABLE
