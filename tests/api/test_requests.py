"""Requests that lack something or name nothing, over the wire: codes and words of Pachyderm's source."""

from collections.abc import Callable, Iterator

import pytest
from google.protobuf.message import Message
from grpclib.const import Status

from pachd.client import Client, RpcError, parse_ref
from pachd.proto import metadata_pb2, pfs_pb2
from tests.processes import Pachd


@pytest.fixture
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address, timeout=60) as c:
        yield c


def test_what_a_request_lacks(client: Client) -> None:
    file = pfs_pb2.File(path="/x")
    nowhere = pfs_pb2.File(commit=pfs_pb2.Commit(id="master"), path="/x")
    good = parse_ref("lacks@master:/x")
    cases: list[tuple[Callable[[Message], object], Message, str]] = [
        (client.pfs.InspectFile, pfs_pb2.InspectFileRequest(file=file), "commit cannot be nil"),
        (client.pfs.InspectFile, pfs_pb2.InspectFileRequest(file=nowhere), "commit must have a repo"),
        (client.pfs.ListFile, pfs_pb2.ListFileRequest(file=nowhere), "commit must have a repo"),
        (client.pfs.InspectCommit, pfs_pb2.InspectCommitRequest(commit=nowhere.commit), "commit must have a repo"),
        (
            client.pfs.FinishCommit,
            pfs_pb2.FinishCommitRequest(commit=nowhere.commit),
            "check new file commit: commit must have a repo",
        ),
        (client.pfs.DiffFile, pfs_pb2.DiffFileRequest(new_file=file), "check new file commit: commit cannot be nil"),
        (
            client.pfs.DiffFile,
            pfs_pb2.DiffFileRequest(new_file=good, old_file=file),
            "check old file commit: commit cannot be nil",
        ),
        (
            client.pfs.StartCommit,
            pfs_pb2.StartCommitRequest(branch=good.commit.branch, parent=nowhere.commit),
            "commit must have a repo",
        ),
        (
            client.pfs.CreateBranch,
            pfs_pb2.CreateBranchRequest(branch=good.commit.branch, head=nowhere.commit),
            "commit must have a repo",
        ),
        (
            client.pfs.ListCommit,
            pfs_pb2.ListCommitRequest(repo=good.commit.repo, to=nowhere.commit),
            "commit must have a repo",
        ),
    ]
    for call, request, words in cases:
        with pytest.raises(RpcError) as caught:
            reply = call(request)
            if not isinstance(reply, Message):
                list(reply)  # type: ignore[call-overload]
        assert (caught.value.code, caught.value.message) == (Status.UNKNOWN, words), words


def test_what_is_refused_before_anything_is_looked_at(client: Client) -> None:
    with pytest.raises(RpcError) as caught:
        client.metadata.EditMetadata(metadata_pb2.EditMetadataRequest(edits=[metadata_pb2.Edit()]))
    assert caught.value.code == Status.INVALID_ARGUMENT
    assert caught.value.message.endswith("invalid Edit.Target: value is required; invalid Edit.Op: value is required")
    start = pfs_pb2.ModifyFileRequest(set_commit=parse_ref("anything@master").commit)
    with pytest.raises(RpcError) as caught:
        client.pfs.ModifyFile([start, pfs_pb2.ModifyFileRequest(copy_file=pfs_pb2.CopyFile(dst="/x"))])
    assert caught.value.code == Status.INVALID_ARGUMENT


def test_a_search_from_an_open_commit(client: Client) -> None:
    file = parse_ref("search@master:/x")
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=file.commit.repo))
    client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=file.commit.branch))
    with pytest.raises(RpcError) as caught:
        list(client.pfs.FindCommits(pfs_pb2.FindCommitsRequest(start=file.commit, file_path="/x")))
    assert caught.value.code == Status.UNAVAILABLE
    assert caught.value.message == "commit default/search@master not finished"


def test_a_subscription_to_nothing(client: Client) -> None:
    one, other = parse_ref("sub-a@master").commit, parse_ref("sub-b@master").commit
    with pytest.raises(RpcError) as caught:
        next(iter(client.pfs.SubscribeCommit(pfs_pb2.SubscribeCommitRequest(repo=one.repo))))
    assert caught.value.code == Status.NOT_FOUND
    assert caught.value.message == "get repo ID: repo (id=0, project=default, name=sub-a, type=user) not found"
    asked = pfs_pb2.SubscribeCommitRequest(repo=one.repo)
    getattr(asked, "from").CopyFrom(other)
    with pytest.raises(RpcError, match="the `from` commit needs to be from repo default/sub-a"):
        next(iter(client.pfs.SubscribeCommit(asked)))


def test_pages_of_repos(client: Client) -> None:
    for name in ("page-b", "page-a"):
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=parse_ref(name).commit.repo))
    assert not list(client.pfs.ListRepo(pfs_pb2.ListRepoRequest(page=pfs_pb2.RepoPage(page_size=0))))
    names = [info.repo.name for info in client.pfs.ListRepo(pfs_pb2.ListRepoRequest(page={"page_size": 1000}))]
    assert names.index("page-a") < names.index("page-b")


def test_walks_over_the_wire(client: Client) -> None:
    master = [parse_ref(f"walk-{name}@master").commit.branch for name in "ab"]
    for branch, above in zip(master, ([], master[:1]), strict=True):
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=branch.repo))
        client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=branch, provenance=above))
    names = [
        pfs_pb2.BranchPicker(name={"repo": {"name": {"project": {"name": "default"}, "name": b.repo.name}}, "name": n})
        for b, n in ((master[1], "master"), (master[1], "nope"))
    ]
    found = list(client.pfs.WalkBranchProvenance(pfs_pb2.WalkBranchProvenanceRequest(start=names[:1])))
    assert [info.branch.repo.name for info in found] == ["walk-a"]
    start = pfs_pb2.CommitPicker(branch_head=names[0])
    commits = list(client.pfs.WalkCommitProvenance(pfs_pb2.WalkCommitProvenanceRequest(start=[start])))
    assert [info.commit.repo.name for info in commits] == ["walk-a"]
    with pytest.raises(RpcError) as caught:
        list(client.pfs.WalkBranchSubvenance(pfs_pb2.WalkBranchSubvenanceRequest(start=names)))
    assert caught.value.message == (
        "walk branch subvenance: pick branches: picking branch: branch (id=0, branch=default/walk-b@nope) not found"
    )
    with pytest.raises(RpcError, match="^walk commit provenance: walk commit provenance: pick commits: picking commit"):
        asked = pfs_pb2.CommitPicker(branch_head=names[1])
        list(client.pfs.WalkCommitProvenance(pfs_pb2.WalkCommitProvenanceRequest(start=[asked])))


def test_what_is_waited_for_may_be_deleted(client: Client) -> None:
    above, below = (parse_ref(f"wait-{name}@master").commit for name in "ab")
    for each in (above, below):
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=each.repo))
    client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=below.branch, provenance=[above.branch]))
    id = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=below)).commit.id
    waiting = iter(client.pfs.InspectCommitSet(pfs_pb2.InspectCommitSetRequest(commit_set={"id": id}, wait=True)))
    assert next(waiting).commit.repo.name == "wait-a"
    client.pfs.DropCommit(pfs_pb2.DropCommitRequest(commit=below))
    with pytest.raises(RpcError) as caught:
        next(waiting)
    assert caught.value.code == Status.UNKNOWN
    assert caught.value.message == f"inspect finishing or finished commit: commit default/wait-b@{id} was deleted"


def test_a_file_set_is_a_finished_commit(client: Client) -> None:
    add = pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/x", raw={"value": b"1"}))
    id = client.pfs.CreateFileSet([add]).file_set_id
    repo = pfs_pb2.Repo(name="__filesets__", type="user", project={"name": "default"})
    asked = pfs_pb2.InspectCommitRequest(commit={"repo": repo, "id": id}, wait="FINISHED")
    info = client.pfs.InspectCommit(asked)
    assert (info.commit.id, info.description) == (id, "FileSet - Virtual Commit") and info.HasField("finished")
