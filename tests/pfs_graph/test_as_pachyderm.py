"""What a client is told where a request cannot be met, in the states that a user may come into."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.errors import NotFound, PachError
from pachd.pfs import branches, check, commits, commitsets, refs, repos, transactions, triggers, writing
from pachd.pps import zombies
from pachd.proto import pfs_pb2, transaction_pb2
from pachd.store import Store
from pachd.types import Branch, Repo
from tests.pfs_graph.test_graph import A, B, chain, make, master, put
from tests.processes import Pachd

NEW = Repo("default", "new")
UNLOADED = 'validate DAG at end of transaction: loading branch info for "default/new@x" during validation: '


@pytest.fixture(scope="module")
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address) as opened:
        yield opened


def request(**what: object) -> transaction_pb2.TransactionRequest:
    return transaction_pb2.TransactionRequest(**what)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"delete_branch": {"branch": refs.branch_pb(Branch(NEW, "x"))}}, ""),
        (
            {"delete_repo": {"repo": refs.repo_pb(NEW)}},
            "repo (id=0, project=default, name=new, type=user) not found\n",
        ),
    ],
)
@pytest.mark.parametrize("moving", ["start_commit", "create_branch"])
def test_a_branch_that_a_transaction_moved_must_be_there_at_its_end(
    store: Store, moving: str, last: dict[str, object], told: str
) -> None:
    moved = request(**{moving: {"branch": refs.branch_pb(Branch(NEW, "x"))}})
    made = request(create_repo={"repo": refs.repo_pb(NEW)})
    with writing(store) as txn:
        id = transactions.start(txn).transaction.id
        for each in (made, moved):
            transactions.append(txn, id, each)
    with pytest.raises(NotFound) as caught, writing(store) as txn:
        transactions.append(txn, id, request(**last))
    assert str(caught.value) == f"{UNLOADED}get branch info: {told}branch (id=0, branch=default/new@x) not found"
    with writing(store) as txn:
        assert list(transactions.finish(txn, id).requests) == [made, moved]
    with writing(store) as txn:
        transactions.batch(txn, [request(**last), *([] if told else [moved])])
        assert told == "" or not repos.list_repos(txn)


def test_a_branch_made_again_is_there(store: Store) -> None:
    make(store, A)
    put(store, A, "/f")
    head = pfs_pb2.Commit(repo=refs.repo_pb(A), branch=refs.branch_pb(master(A)))
    other = refs.branch_pb(Branch(A, "other"))
    create = request(create_branch={"branch": other, "head": head})
    with writing(store) as txn:
        done = transactions.batch(txn, [create, request(delete_branch={"branch": other}), create])
    assert len(done.responses) == 3


def test_a_commit_that_cannot_be_picked_is_told_by_who_wanted_it(store: Store) -> None:
    make(store, A)
    put(store, A, "/f")
    bare = pfs_pb2.Commit(repo=refs.repo_pb(A))
    too_far = pfs_pb2.Commit(repo=refs.repo_pb(A), id="^2", branch=refs.branch_pb(master(A)))
    for commit, told in (
        (bare, "pick commit tx: cannot pick commit with no ID or branch"),
        (too_far, "pick commit tx: picking commit: invalid offset for ancestor of commit: default/a.user@"),
    ):
        with pytest.raises(PachError) as caught, writing(store) as txn:
            commits.finish_commit(txn, commit)
        assert str(caught.value).startswith(f"finish commit in transaction: {told}")
    with pytest.raises(PachError) as caught, writing(store) as txn:
        branches.create_branch(txn, Branch(A, "old"), head=too_far)
    assert str(caught.value).startswith("unable to inspect default/a@master^2: pick commit tx: picking commit: ")


def test_a_trigger_on_a_repo_that_is_missing(store: Store) -> None:
    wrong = pfs_pb2.Trigger(branch="staging", rate_limit_spec="never", size="lots")
    with store.read() as txn, pytest.raises(PachError, match="^invalid trigger rate limit spec: "):
        triggers.check(txn, master(NEW), wrong)
    with store.read() as txn, pytest.raises(NotFound, match="^repo default/new not found$"):
        triggers.check(txn, master(NEW), pfs_pb2.Trigger(branch="staging", commits=1))


def test_who_depends_on_a_branch_is_told_before_who_follows_it(store: Store) -> None:
    make(store, A, B)
    with writing(store) as txn:
        branches.create_branch(txn, master(B), provenance=[master(A)])
    with writing(store) as txn:
        branches.create_branch(txn, Branch(A, "follows"), trigger=pfs_pb2.Trigger(branch="master", commits=1))
    with pytest.raises(PachError, match=r"in the direct provenance of \[default/b@master\]$"), writing(store) as txn:
        repos.delete_repo(txn, A)
    with writing(store) as txn:
        branches.delete_branch(txn, master(B))
    with pytest.raises(PachError, match=r"it is triggered by branches \[default/a@follows\]$"), writing(store) as txn:
        repos.delete_repo(txn, A)


def test_zombies_of_what_no_pipeline_wrote(store: Store) -> None:
    make(store, A)
    commit = pfs_pb2.Commit(repo=refs.repo_pb(A), branch=refs.branch_pb(master(A)))
    put(store, A, "/f")
    with store.read() as txn, pytest.raises(NotFound) as caught:
        list(zombies.of_commit(txn, commit))
    assert str(caught.value) == "pick commit tx: commit default/a.meta@ not found\nrepo default/a.meta not found"


def test_a_file_of_a_glob_that_is_none(client: Client) -> None:
    repo = refs.repo_pb(Repo("default", "globbed"))
    commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="open"))
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
    client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=commit.branch))
    file = pfs_pb2.GetFileRequest(file=pfs_pb2.File(commit=commit, path="/["))
    for call, told in (
        (lambda: client.pfs.GetFile(file), "get file: unexpected end of input"),
        (lambda: client.pfs.GetFileTAR(file), "unexpected end of input"),
        (lambda: client.pfs.GlobFile(pfs_pb2.GlobFileRequest(commit=commit, pattern="/[")), "unexpected end of input"),
    ):
        with pytest.raises(RpcError) as caught:
            list(call())
        assert (caught.value.code, str(caught.value)) == (Status.UNKNOWN, told)


def test_a_file_is_one_message_if_a_client_may_take_it(client: Client, pachd_process: Pachd) -> None:
    repo = refs.repo_pb(Repo("default", "weighed"))
    commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="open"))
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
    client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=commit.branch))
    with grpc.insecure_channel(pachd_process.address) as channel:
        for size, messages, of_tar in ((0, 0, 1), (3 << 20, 1, 1), ((4 << 20) - 4096, 1, 4), (4 << 20, 4, 5)):
            file = pfs_pb2.File(commit=commit, path=f"/{size}")
            data = b"ab" * (size // 2)
            pieces = [data[at : at + (1 << 20)] for at in range(0, size, 1 << 20)] or [b""]
            adds = [{"path": file.path, "raw": {"value": piece}} for piece in pieces]
            requests = [pfs_pb2.ModifyFileRequest(add_file=add) for add in adds]  # type: ignore[arg-type]
            client.pfs.ModifyFile(iter([pfs_pb2.ModifyFileRequest(set_commit=commit), *requests]))
            call = channel.unary_stream("/pfs_v2.API/GetFile", None, BytesValue.FromString)
            found = [each.value for each in call(pfs_pb2.GetFileRequest(file=file).SerializeToString())]
            assert len(found) == messages and b"".join(found) == data
            call = channel.unary_stream("/pfs_v2.API/GetFileTAR", None, BytesValue.FromString)
            found = [each.value for each in call(pfs_pb2.GetFileRequest(file=file).SerializeToString())]
            assert len(found) == of_tar and data in b"".join(found)


def test_a_branch_behind_its_provenance_is_told(store: Store) -> None:
    chain(store)
    put(store, A, "/f")
    told = "consistency error: parent branch default/%s@master commit is not in direct provenance of head of branch "
    with store.read() as txn:
        assert not list(check.behind(txn))
    with writing(store) as txn:
        commitsets.drop_commit(txn, refs.resolve_commit(txn, (B, "master")), recursive=True)
    with store.read() as txn:
        assert list(check.behind(txn)) == [told % "a" + "default/b@master"]
    put(store, A, "/g")
    with store.read() as txn:
        assert not list(check.behind(txn))
        assert not list(check.check(txn))


def test_of_two_missing_commits_that_differ_the_new_one_is_named(client: Client) -> None:
    repo = refs.repo_pb(Repo("default", "compared"))

    def file(branch: str) -> pfs_pb2.File:
        return pfs_pb2.File(commit=pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name=branch)), path="/")

    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
    client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=pfs_pb2.Branch(repo=repo, name="there")))
    for new, old, missing in (("one", "two", "one"), ("there", "two", "two"), ("one", "there", "one")):
        with pytest.raises(RpcError) as caught:
            list(client.pfs.DiffFile(pfs_pb2.DiffFileRequest(new_file=file(new), old_file=file(old))))
        assert caught.value.code is Status.NOT_FOUND
        assert str(caught.value).endswith(f'branch "{missing}" not found in repo default/compared')
