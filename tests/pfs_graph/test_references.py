"""References and pickers: what Pachyderm's grammar takes, what each means, and the words for what means nothing."""

import pytest

from pachd.errors import NotFound, PachError
from pachd.pfs import branches, pickers, refs, repos, writing
from pachd.proto import pfs_pb2
from pachd.store import Store
from tests.pfs_graph.test_graph import A, B, C, chain, make, master, put

ID = "0" * 12 + "4" + "0" * 19


@pytest.fixture
def line(store: Store) -> list[str]:
    """Four commits of `a@master`, the first one first."""
    make(store, A)
    return [put(store, A, f"/{i}") for i in range(4)]


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        ("master", 3),
        ("master^", 2),
        ("master~~", 1),
        ("master^0", 3),
        ("master~3", 0),
        ("master.1", 0),
        ("master.4", 3),
        ("master.5", 3),
        ("master.3^", 1),
        ("master.4~2", 1),
        ("<2>^", 1),
        ("<2>~2", 0),
        ("<1>", 1),
        ("<CAPITALS>", 3),
    ],
)
def test_a_reference(store: Store, line: list[str], ref: str, number: int) -> None:
    for each in (1, 2):
        ref = ref.replace(f"<{each}>", line[each])
    ref = ref.replace("<CAPITALS>", line[3].upper())
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, ref)).id == line[number]


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("master^~", "calculate offset default/a@master^~: count offset and clean: invalid ancestry format"),
        ("master^1^", "count offset and clean: invalid ancestry format"),
        ("master^.1", "count offset and clean: invalid ancestry format"),
        ("master.", "count offset and clean: invalid ancestry format"),
        ("master.2^2", "calculate offset default/a@master.2^2: there should be less ancestors than descendants"),
        ("master.1^", "there should be less ancestors than descendants"),
        (f"master^{1 << 63}", "invalid ancestor format"),
        (f"master.{1 << 63}", "invalid descendants format"),
        ("master.6", "offset: 5, maximum depth: 4"),
        ("master.0", "offset: 4294967295, maximum depth: 4"),
        ("<0>^", "offset requested: 1, offset traversable: 0"),
        (
            "<0>.1",
            "unmarshal branch picker default/a@<0>: invalid branch picker: name refers to a commit, not a branch",
        ),
        (f"{ID}", f"commit default/a@{ID} not found\ncommit default/a@{ID} not found"),
    ],
)
def test_a_reference_to_nothing(store: Store, line: list[str], ref: str, error: str) -> None:
    with store.read() as txn, pytest.raises(PachError) as caught:
        refs.resolve_commit(txn, (A, ref.replace("<0>", line[0])))
    assert str(caught.value).startswith("pick commit tx: ")
    assert str(caught.value).endswith(error.replace("<0>", line[0]))


def test_steps_in_the_id_go_from_the_branch(store: Store, line: list[str]) -> None:
    with store.read() as txn:
        for steps, number in (("^", 2), ("~3", 0), (".2", 1)):
            commit = pfs_pb2.Commit(repo=refs.repo_pb(A), branch=refs.branch_pb(master(A)), id=steps)
            assert refs.resolve_commit(txn, commit).id == line[number]
        named_by_id = pfs_pb2.Commit(repo=refs.repo_pb(A), branch=pfs_pb2.Branch(name=line[1]))
        assert refs.resolve_commit(txn, named_by_id).id == line[1]


def test_another_sets_id_stands_only_by_itself(store: Store) -> None:
    chain(store)
    with writing(store) as txn:
        repos.create_repo(txn, repo := A._replace(name="d"))
        branches.create_branch(txn, master(repo))
    put(store, A, "/1")
    old = put(store, A, "/2")
    with writing(store) as txn:
        branches.create_branch(txn, master(C), provenance=[master(B), master(repo)])
    with store.read() as txn:
        id = refs.resolve_commit(txn, (C, "master")).id
        assert refs.resolve_commit(txn, (A, id)).id == old
    with store.read() as txn, pytest.raises(NotFound, match=rf"commit default/a@{id}\^ not found"):
        refs.resolve_commit(txn, (A, f"{id}^"))


def test_a_project_that_is_not_there(store: Store) -> None:
    with store.read() as txn, pytest.raises(NotFound) as caught:
        refs.resolve_commit(txn, (A._replace(project="nope"), "master"))
    told = "pick commit tx: picking commit: picking branch: picking repo: picking project"
    assert str(caught.value) == f'{told}: project "nope" not found'


def picker(repo: str = "a", project: str = "default", **what: object) -> pfs_pb2.CommitPicker:
    name = pfs_pb2.RepoPicker.RepoName(project=pfs_pb2.ProjectPicker(name=project), name=repo)
    of = pfs_pb2.RepoPicker(name=name)
    if "id" in what:
        return pfs_pb2.CommitPicker(id={"repo": of, "id": what["id"]})
    return pfs_pb2.CommitPicker(branch_head={"name": {"repo": of, "name": what["branch"]}})


def test_pickers(store: Store, line: list[str]) -> None:
    head = picker(branch="master")
    with store.read() as txn:
        assert pickers.pick_commit(txn, head).id == line[3]
        assert pickers.pick_commit(txn, picker(id=line[1])).id == line[1]
        back = pfs_pb2.CommitPicker(ancestor={"start": head, "offset": 2})
        assert pickers.pick_commit(txn, back).id == line[1]
        root = pfs_pb2.CommitPicker(branch_root={"branch": head.branch_head, "offset": 2})
        assert pickers.pick_commit(txn, root).id == line[2]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (pfs_pb2.CommitPicker(), "commit picker cannot be nil"),
        (
            picker(id=ID),
            f"picking commit: get commit by commit key: commit (int_id=0, commit_id=default/a.user@{ID}) not found",
        ),
        (
            picker(repo="nope", branch="x"),
            "picking commit: picking branch: picking repo: get repo info with id: "
            "repo (id=0, project=default, name=nope, type=user) not found",
        ),
        (
            picker(project="nope", id=ID),
            'picking commit: picking repo: picking project: project "nope" not found',
        ),
        (picker(branch="x"), "picking commit: picking branch: branch (id=0, branch=default/a@x) not found"),
        (
            pfs_pb2.CommitPicker(ancestor={"start": picker(branch="x"), "offset": 1}),
            "picking commit: picking commit: picking branch: branch (id=0, branch=default/a@x) not found",
        ),
        (pfs_pb2.CommitPicker(branch_head={}), "picking commit: branch picker cannot be nil"),
    ],
)
def test_pickers_of_nothing(store: Store, line: list[str], asked: pfs_pb2.CommitPicker, error: str) -> None:
    with store.read() as txn, pytest.raises(PachError) as caught:
        pickers.pick_commit(txn, asked)
    assert str(caught.value) == error


def test_a_branch_off_an_older_commit_counts_its_own_line(store: Store, line: list[str]) -> None:
    with writing(store) as txn:
        old = refs.resolve_commit(txn, (A, "master^")).key
        branches.create_branch(txn, master(A)._replace(name="other"), head=old)
    id = put(store, A, "/x", branch="other")
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, "other^")).id == line[2]
        assert refs.resolve_commit(txn, (A, "other.4")).id == id
