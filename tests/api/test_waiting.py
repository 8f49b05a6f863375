"""Reading a commit that is being finished: whoever can wait, waits for what it builds on."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.processes import Pachd

NUMBERS = itertools.count()


@pytest.fixture
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address, timeout=120) as client:
        yield client


class Line:
    """A repo `derived` from another one: its first commit is open, and its second one is asked to finish."""

    def __init__(self, client: Client) -> None:
        self.client = client
        number = next(NUMBERS)
        source, self.repo = (pfs_pb2.Repo(name=f"{kind}{number}", type="user") for kind in ("source", "derived"))
        for repo in (source, self.repo):
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        above = pfs_pb2.Branch(repo=source, name="master")
        branch = pfs_pb2.Branch(repo=self.repo, name="master")
        client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=branch, provenance=[above]))
        self.first = self.head()
        self.put(self.first, "/old", b"1")
        client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=pfs_pb2.Commit(branch=above))])
        self.second = self.head()
        self.put(self.second, "/new", b"22")
        client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=self.second))

    def head(self) -> pfs_pb2.Commit:
        branch = pfs_pb2.Branch(repo=self.repo, name="master")
        info = self.client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch))
        return pfs_pb2.Commit(repo=self.repo, id=info.head.id)

    def put(self, commit: pfs_pb2.Commit, path: str, data: bytes) -> None:
        file = pfs_pb2.AddFile(path=path, raw=BytesValue(value=data))
        self.client.pfs.ModifyFile(
            [pfs_pb2.ModifyFileRequest(set_commit=commit), pfs_pb2.ModifyFileRequest(add_file=file)]
        )

    def finish(self) -> None:
        self.client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=self.first))


def waiting(line: Line, ask: Callable[[], Any]) -> Any:
    """What `ask()` returns, called while the first commit is open, which is then finished."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(ask())
        except RpcError as e:
            answers.append(e)

    asking = threading.Thread(target=run)
    asking.start()
    asking.join(0.3)  # long enough for an answer that should not come yet
    assert not answers
    line.finish()
    asking.join()
    return answers[0]


def test_reads_wait_for_a_commit_that_is_being_finished(client: Client) -> None:
    def at(path: str) -> pfs_pb2.File:
        return pfs_pb2.File(commit=line.second, path=path)

    def paths(infos: Any) -> list[str]:
        return [info.file.path for info in infos]

    pfs = client.pfs
    asked: list[tuple[Callable[[], Any], Any]] = [
        (lambda: pfs.InspectFile(pfs_pb2.InspectFileRequest(file=at("/"))).size_bytes, 3),
        (lambda: paths(pfs.ListFile(pfs_pb2.ListFileRequest(file=at("/")))), ["/new", "/old"]),
        (lambda: paths(pfs.GlobFile(pfs_pb2.GlobFileRequest(commit=line.second, pattern="/n*"))), ["/new"]),
        (lambda: [m.value for m in pfs.GetFile(pfs_pb2.GetFileRequest(file=at("/old")))], [b"1"]),
        (lambda: paths(r.new_file for r in pfs.DiffFile(pfs_pb2.DiffFileRequest(new_file=at("/")))), ["/", "/new"]),
    ]
    for ask, answer in asked:
        line = Line(client)
        assert waiting(line, ask) == answer


def test_a_copy_waits_for_its_source(client: Client) -> None:
    line = Line(client)
    target = pfs_pb2.Commit(branch=pfs_pb2.Branch(repo=line.repo, name="copies"))
    file = pfs_pb2.File(commit=line.second, path="/")
    requests = [
        pfs_pb2.ModifyFileRequest(set_commit=target),
        pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/before", raw=BytesValue(value=b"b"))),
        pfs_pb2.ModifyFileRequest(copy_file=pfs_pb2.CopyFile(dst="/all", src=file)),
        pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/after", raw=BytesValue(value=b"a"))),
    ]
    waiting(line, lambda: client.pfs.ModifyFile(requests))
    found = client.pfs.WalkFile(pfs_pb2.WalkFileRequest(file=pfs_pb2.File(commit=target, path="/")))
    assert [info.file.path for info in found] == ["/", "/after", "/all/", "/all/new", "/all/old", "/before"]


def test_who_cannot_wait_is_told_why(client: Client) -> None:
    line = Line(client)
    with pytest.raises(RpcError, match=f"^get file set: base commit .*{line.first.id} for commit .* unfinished$"):
        client.pfs.GetFileSet(pfs_pb2.GetFileSetRequest(commit=line.second))
    line.finish()
    assert client.pfs.GetFileSet(pfs_pb2.GetFileSetRequest(commit=line.second)).file_set_id


def test_only_lists_tell_how_many_bytes_a_commit_may_hold(client: Client) -> None:
    def bounds() -> list[int]:
        listed = client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=line.repo))
        return [info.size_bytes_upper_bound for info in listed]

    line = Line(client)
    assert bounds() == [0, 1]
    line.finish()
    assert bounds() == [3, 1]
    info = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=line.second))
    assert (info.size_bytes_upper_bound, info.details.size_bytes) == (0, 3)
