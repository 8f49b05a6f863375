"""What is kept for a while or forgotten on purpose: the cache, file sets, forgotten commits; metadata; listings."""

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from pachd.errors import NotFound, PachError
from pachd.pfs import branches, cache, commits, metadata, refs, repos, temporary, transactions, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import metadata_pb2, pfs_pb2, transaction_pb2
from pachd.store import Store, system
from pachd.types import Branch, Repo

IN, OUT = Repo("default", "in"), Repo("default", "out")
SECOND = 1_000_000_000


def put(store: Store, path: str, data: bytes, repo: Repo = IN) -> str:
    with Modification(store) as modification:
        modification.append(path, data)
        with writing(store) as txn:
            modify_file(txn, pfs_pb2.Commit(branch=refs.branch_pb(Branch(repo, "master"))), modification)
            return refs.resolve_commit(txn, (repo, "master")).id


def read(store: Store, repo: Repo, ref: str) -> dict[str, bytes]:
    with store.read() as txn:
        view = View.of(txn, refs.resolve_commit(txn, (repo, ref)))
        return {e.path: b"".join(view.read(e)) for e in view.glob("/**") if not e.is_dir}


@pytest.fixture
def data(store: Store) -> Store:
    with writing(store) as txn:
        repos.create_repo(txn, IN)
        repos.create_repo(txn, OUT)
    return store


def value(text: str) -> Any:
    packed = Any()
    packed.Pack(StringValue(value=text))
    return packed


def test_the_cache_keeps_its_file_sets_alive(data: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [system.now_ns()]
    monkeypatch.setattr(system, "now_ns", lambda: now[0])
    with Modification(data) as one, Modification(data) as two:
        one.append("/a", b"1")
        two.append("/b", b"2")
        with writing(data) as txn:
            kept, lost = temporary.create(txn, one), temporary.create(txn, two)
            cache.put(txn, "key", value("v"), [kept], "tag-1")
            cache.put(txn, "key", value("other"), [kept[:32]], "tag-2")
            with pytest.raises(PachError, match="^a different object exists at that id$"):
                cache.put(txn, "key", value("v"), [lost])
    now[0] += 3600 * SECOND
    with data.read() as txn:
        assert [e.path for e in temporary.view(txn, kept).glob("/*")] == ["/a"]
        with pytest.raises(PachError, match="path does not exist"):
            temporary.view(txn, lost)
        assert cache.get(txn, "key") == value("v")
    with pytest.raises(NotFound), writing(data) as txn:
        temporary.renew(txn, lost, 60)
    with writing(data) as txn:
        assert temporary.expire(txn) == 1
        cache.clear(txn, "other")
        assert cache.get(txn, "key") == value("v")
        cache.clear(txn, "tag")
        with pytest.raises(PachError, match="no rows"):
            cache.get(txn, "key")
        assert temporary.expire(txn) == 1


def test_the_cache_refuses_what_is_not_there(data: Store) -> None:
    with writing(data) as txn:
        with pytest.raises(PachError, match="dangling reference"):
            cache.put(txn, "k", value("v"), ["0" * 32])
        with pytest.raises(PachError):
            cache.put(txn, "k", None)


def test_a_forgotten_commit_has_no_files_and_its_children_have_theirs(data: Store) -> None:
    with writing(data) as txn:
        branches.create_branch(txn, Branch(OUT, "master"), provenance=[Branch(IN, "master")])
    ids = []
    for number in range(3):
        ids.append(put(data, f"/{number}", b"x"))
        with Modification(data) as modification:
            modification.append(f"/out{number}", b"y")
            with writing(data) as txn:
                row = refs.resolve_commit(txn, (OUT, ids[-1]))
                if number == 0:
                    first = refs.parent(txn, row)
                    assert first is not None
                    commits.finish_commit(txn, first.key)
                modification.apply(txn, row)
                commits.finish_commit(txn, row.key)
    with writing(data) as txn:
        commits.forget_commit(txn, refs.resolve_commit(txn, (OUT, ids[1])))
    with pytest.raises(PachError, match="the commit is forgotten"):
        read(data, OUT, ids[1])
    assert set(read(data, OUT, ids[2])) == {"/out0", "/out1", "/out2"}
    for repo, ref, words in ((OUT, ids[2], "cannot be a forgotten commit"), (IN, ids[0], "must be in an output repo")):
        with pytest.raises(PachError, match=words), writing(data) as txn:
            commits.forget_commit(txn, refs.resolve_commit(txn, (repo, ref)))


def test_metadata_of_everything(data: Store) -> None:
    put(data, "/a", b"1")
    repo = pfs_pb2.RepoPicker(name={"project": {"name": "default"}, "name": "in", "type": "user"})
    branch = pfs_pb2.BranchPicker(name={"repo": repo, "name": "master"})
    targets = [
        {"cluster": {}},
        {"project": {"name": "default"}},
        {"repo": repo},
        {"branch": branch},
        {"commit": {"branch_head": branch}},
    ]
    add = [metadata_pb2.Edit(**target, add_key={"key": "who", "value": "me"}) for target in targets]  # type: ignore[arg-type]
    with writing(data) as txn:
        metadata.edit(txn, add)
    with data.read() as txn:
        assert metadata.cluster(txn) == {"who": "me"}
        assert dict(repos.inspect_repo(txn, IN).metadata) == {"who": "me"}
        assert dict(branches.inspect_branch(txn, Branch(IN, "master")).metadata) == {"who": "me"}
    with pytest.raises(PachError) as error, writing(data) as txn:
        metadata.edit(txn, [*add, metadata_pb2.Edit(cluster={}, edit_key={"key": "x", "value": "y"})])
    assert [line.partition(":")[0] for line in str(error.value).removeprefix("apply edits: ").splitlines()] == [
        f"edit #{number}" for number in range(5)
    ]
    with writing(data) as txn:
        assert metadata.cluster(txn) == {"who": "me"}
        metadata.edit(txn, [metadata_pb2.Edit(cluster={}, replace={"replacement": {"a": "b"}})])
        assert metadata.cluster(txn) == {"a": "b"}


def listed(store: Store, **request: object) -> list[str]:
    with store.read() as txn:
        asked = pfs_pb2.ListCommitRequest(repo=refs.repo_pb(IN), **request)  # type: ignore[arg-type]
        return [info.commit.id for info in commits.list_commits(txn, asked)]


def test_listings_of_commits(data: Store) -> None:
    ids = [put(data, f"/{number}", b"x") for number in range(4)]
    newest = ids[::-1]
    master = pfs_pb2.Commit(repo=refs.repo_pb(IN), branch=refs.branch_pb(Branch(IN, "master")))
    second = pfs_pb2.Commit(repo=refs.repo_pb(IN), id=ids[1])
    assert listed(data) == newest and listed(data, reverse=True) == ids
    assert listed(data, number=2) == newest[:2] and listed(data, number=2, reverse=True) == ids[:2]
    assert listed(data, to=master, **{"from": second}) == newest[:2]
    assert listed(data, to=master, number=3) == newest[:3]
    assert listed(data, origin_kind=pfs_pb2.AUTO) == [] and listed(data, origin_kind=pfs_pb2.AUTO, all=True) == newest
    with data.read() as txn:
        time = Timestamp()
        time.FromNanoseconds(refs.resolve_commit(txn, (IN, ids[2])).started)
    assert listed(data, started_time=time) == newest[2:]
    assert listed(data, started_time=time, reverse=True) == ids[3:]
    assert listed(data, started_time=Timestamp(seconds=253_402_300_799)) == newest
    for wrong in ({"from": second}, {"to": master, "reverse": True}, {"to": {"repo": refs.repo_pb(OUT), "id": "x"}}):
        with pytest.raises(PachError):
            listed(data, **wrong)
    with data.read() as txn:
        everything = list(commits.list_commits(txn, pfs_pb2.ListCommitRequest(repo=pfs_pb2.Repo())))
    assert [info.commit.id for info in everything] == newest


def test_a_dry_run_leaves_nothing_behind_and_finishing_makes_one_set(data: Store) -> None:
    with writing(data) as txn:
        branches.create_branch(txn, Branch(OUT, "master"), provenance=[Branch(IN, "master")])
        id = transactions.start(txn).transaction.id
    start = transaction_pb2.TransactionRequest(start_commit={"branch": refs.branch_pb(Branch(IN, "master"))})
    with data.read() as txn:
        before = len(refs.commit_rows(txn, "1"))
    with writing(data) as txn:
        answered = transactions.append(txn, id, start).commit.id
    with pytest.raises(PachError), writing(data) as txn:
        transactions.append(txn, id, start)
    with data.read() as txn:
        assert len(refs.commit_rows(txn, "1")) == before
        assert len(transactions.inspect(txn, id).requests) == 1
    with writing(data) as txn:
        transactions.finish(txn, id)
    with data.read() as txn:
        assert {row.repo.name for row in refs.commit_rows(txn, "c.id=?", (answered,))} == {"in", "out"}
        assert answered == id and transactions.list_all(txn) == []


def test_repos_that_depend_on_each_other_are_deleted_together(data: Store) -> None:
    other = Repo("default", "other")
    with writing(data) as txn:
        repos.create_repo(txn, other)
        branches.create_branch(txn, Branch(IN, "master"), provenance=[Branch(OUT, "master")])
    with pytest.raises(PachError, match="^delete branch default/out@master"), writing(data) as txn:
        repos.delete_repo(txn, OUT)
    with pytest.raises(PachError, match="^delete branch default/out@master"), writing(data) as txn:
        repos.delete_repos(txn, None, may=lambda repo: repo != IN)
    with writing(data) as txn:
        assert {repo.name for repo in repos.delete_repos(txn, None, may=lambda repo: repo != other)} == {"in", "out"}
        assert [info.repo.name for info in repos.list_repos(txn)] == ["other"]


def test_a_system_repo_needs_its_user_repo(data: Store) -> None:
    with pytest.raises(NotFound, match="without a corresponding 'user' repo"), writing(data) as txn:
        repos.create_repo(txn, Repo("default", "none", "meta"))
