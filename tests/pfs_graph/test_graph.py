"""Repos, branches, commits and what follows from the provenance between them."""

from typing import Any

import pytest

from pachd.errors import AlreadyExists, NotFound, PachError
from pachd.pfs import branches, commits, commitsets, projects, refs, repos, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Store
from pachd.types import Branch, Repo

A, B, C = (Repo("default", name) for name in "abc")


def master(repo: Repo) -> Branch:
    return Branch(repo, "master")


def make(store: Store, *names: Repo) -> None:
    with writing(store) as txn:
        for repo in names:
            repos.create_repo(txn, repo)


def chain(store: Store) -> None:
    """a → b → c."""
    make(store, A, B, C)
    with writing(store) as txn:
        branches.create_branch(txn, master(B), provenance=[master(A)])
        branches.create_branch(txn, master(C), provenance=[master(B)])


def put(store: Store, repo: Repo, path: str, data: bytes = b"x", branch: str = "master") -> str:
    with Modification(store) as modification:
        modification.append(path, data)
        target = pfs_pb2.Commit(repo=refs.repo_pb(repo), branch=refs.branch_pb(Branch(repo, branch)))
        with writing(store) as txn:
            modify_file(txn, target, modification)
            return refs.resolve_commit(txn, (repo, branch)).id


def paths(txn: Snapshot, repo: Repo, ref: str = "master") -> list[str]:
    return [e.path for e in View.of(txn, refs.resolve_commit(txn, (repo, ref))).glob("/**") if not e.is_dir]


def finish(store: Store, repo: Repo, ref: str = "master", **how: Any) -> None:
    with writing(store) as txn:
        commits.finish_commit(txn, refs.resolve_commit(txn, (repo, ref)).key, **how)


def test_a_commit_makes_one_commit_in_every_branch_downstream_with_one_id(store: Store) -> None:
    chain(store)
    id = put(store, A, "/f")
    with store.read() as txn:
        rows = [refs.resolve_commit(txn, (repo, "master")) for repo in (A, B, C)]
        assert [row.id for row in rows] == [id] * 3
        assert [row.origin for row in rows] == [pfs_pb2.USER, pfs_pb2.AUTO, pfs_pb2.AUTO]
        assert [row.state for row in rows] == [pfs_pb2.FINISHED, pfs_pb2.STARTED, pfs_pb2.STARTED]
        members = list(commitsets.inspect_commit_set(txn, id))
        assert [m.commit.repo.name for m in members] == ["a", "b", "c"]
        assert [p.id for p in members[2].direct_provenance] == [id]


def test_a_finishing_commit_waits_for_its_parent_and_children_skip_a_failed_one(store: Store) -> None:
    make(store, A, B)
    with writing(store) as txn:
        branches.create_branch(txn, master(B), provenance=[master(A)])
    finish(store, B)
    put(store, A, "/1")
    first = put(store, A, "/1")
    put(store, A, "/2")
    finish(store, B)  # the newer one first: its parent is open
    with store.read() as txn:
        assert refs.resolve_commit(txn, (B, "master")).state == pfs_pb2.FINISHING
        assert refs.resolve_commit(txn, (B, first)).state == pfs_pb2.STARTED
    finish(store, B, "master^", error="datum failed")
    with store.read() as txn:
        assert refs.resolve_commit(txn, (B, "master")).state == pfs_pb2.FINISHING, "its grandparent is still open"
    finish(store, B, "master^^")
    with store.read() as txn:
        head = refs.resolve_commit(txn, (B, "master"))
        assert head.state == pfs_pb2.FINISHED and not head.error
        assert refs.resolve_commit(txn, (B, "master^")).error == "datum failed"


def test_moving_a_head_back_propagates_and_keeps_history(store: Store) -> None:
    chain(store)
    old, new = put(store, A, "/old"), put(store, A, "/new")
    with writing(store) as txn:
        branches.create_branch(txn, master(A), head=refs.resolve_commit(txn, (A, old)).key)
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, "master")).id == old
        below = refs.resolve_commit(txn, (B, "master"))
        assert below.id not in (old, new)
        assert [p.id for p in commits.commit_info(txn, below).direct_provenance] == [old]
        assert refs.resolve_commit(txn, (A, below.id)).id == old, "the input of a commit set is found by the set's ID"
        assert paths(txn, A, new) == ["/new", "/old"]


def test_one_repo_takes_part_in_a_transaction_once(store: Store) -> None:
    make(store, A)
    with pytest.raises(AlreadyExists, match="already has a commit in this transaction"), writing(store) as txn:
        commits.start_commit(txn, master(A))
        commits.start_commit(txn, Branch(A, "other"))
    with store.read() as txn:
        assert not list(branches.list_branches(txn, A)), "all of it is undone"


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("master^9", "offset requested: 9, offset traversable: 2"),
        ("master.0", "maximum depth: 3"),
        ("master^x", "invalid ancestry format"),
        ("master^^2", "invalid ancestry format"),
        ("nope", 'branch "nope" not found in repo default/a'),
        ("0" * 12 + "4" + "0" * 19, "commit default/a@0000000000004"),
    ],
)
def test_references_that_name_nothing(store: Store, ref: str, error: str) -> None:
    make(store, A)
    for n in range(3):
        put(store, A, f"/{n}")
    with store.read() as txn, pytest.raises(PachError) as caught:
        refs.resolve_commit(txn, (A, ref))
    assert error in str(caught.value)


def test_references(store: Store) -> None:
    make(store, A)
    ids = [put(store, A, f"/{n}") for n in range(4)]
    with store.read() as txn:
        for ref, n in [
            ("master", 3),
            ("master^", 2),
            ("master^^", 1),
            ("master~3", 0),
            ("master.2", 1),
            (ids[3] + "^2", 1),
        ]:
            assert refs.resolve_commit(txn, (A, ref)).id == ids[n], ref


def test_squash_keeps_the_files_and_drop_removes_them(store: Store) -> None:
    make(store, A)
    first, second, third = (put(store, A, f"/{n}") for n in range(3))
    with writing(store) as txn, pytest.raises(PachError, match="no children"):
        commitsets.squash_commit_set(txn, third)
    with writing(store) as txn:
        commitsets.squash_commit_set(txn, second)
    with store.read() as txn:
        assert paths(txn, A) == ["/0", "/1", "/2"]
        assert refs.resolve_commit(txn, (A, "master^")).id == first
    with writing(store) as txn, pytest.raises(PachError, match="has children"):
        commitsets.drop_commit_set(txn, first)
    with writing(store) as txn:
        commitsets.drop_commit_set(txn, third)
    with store.read() as txn:
        assert paths(txn, A) == ["/0"] and refs.resolve_commit(txn, (A, "master")).id == first


def test_dropping_the_only_commit_leaves_an_empty_head(store: Store) -> None:
    make(store, A)
    only = put(store, A, "/f")
    with writing(store) as txn:
        commitsets.drop_commit_set(txn, only)
    with store.read() as txn:
        assert paths(txn, A) == [] and refs.resolve_commit(txn, (A, "master")).id != only


def test_what_others_depend_on_stays(store: Store) -> None:
    chain(store)
    with writing(store) as txn, pytest.raises(PachError, match="direct provenance of"):
        repos.delete_repo(txn, A)
    with writing(store) as txn, pytest.raises(PachError, match="direct provenance of"):
        branches.delete_branch(txn, master(B))
    with writing(store) as txn, pytest.raises(PachError, match="cycle detected"):
        branches.create_branch(txn, master(A), provenance=[master(C)])
    finish(store, B)
    with writing(store) as txn, pytest.raises(PachError, match="cannot start a commit on an output branch"):
        commits.start_commit(txn, master(B))
    with writing(store) as txn:
        assert repos.delete_repo(txn, A, force=True)
        assert not repos.delete_repo(txn, A)
    with store.read() as txn:
        assert not branches.inspect_branch(txn, master(B)).direct_provenance


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a.b"])
def test_illegal_names_are_refused(store: Store, name: str) -> None:
    with writing(store) as txn, pytest.raises(PachError, match="invalid"):
        repos.create_repo(txn, Repo("default", name))
    with writing(store) as txn, pytest.raises(PachError, match="invalid"):
        projects.create_project(txn, name)


def test_missing_things_are_named(store: Store) -> None:
    with writing(store) as txn, pytest.raises(NotFound, match="repo default/a not found"):
        commits.start_commit(txn, master(A))
    with store.read() as txn, pytest.raises(NotFound, match='branch "master" not found in repo default/a'):
        branches.inspect_branch(txn, master(A))


def test_a_trigger_moves_its_branch_when_enough_has_come(store: Store) -> None:
    make(store, A)
    put(store, A, "/0", branch="staging")
    with writing(store) as txn:
        branches.create_branch(txn, master(A), trigger=pfs_pb2.Trigger(branch="staging", size="3B"))
    put(store, A, "/1", b"1", branch="staging")
    with store.read() as txn:
        assert paths(txn, A) == []
    id = put(store, A, "/2", b"22", branch="staging")
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, "master")).id == id


def test_a_parent_in_another_repo_is_refused(store: Store) -> None:
    make(store, A, B)
    id = put(store, A, "/f")
    with pytest.raises(PachError, match="is in another repo than default/b@master"), writing(store) as txn:
        commits.start_commit(txn, master(B), pfs_pb2.Commit(repo=refs.repo_pb(A), id=id))


def test_commits_removed_together_leave_branches_connected_whatever_their_order(store: Store) -> None:
    make(store, A, B, C)
    with writing(store) as txn:  # the commits of c are older than those of b of the same set
        branches.create_branch(txn, master(C), provenance=[master(A)])
        branches.create_branch(txn, master(B), provenance=[master(A)])
    with store.read() as txn:
        old, root = (refs.resolve_commit(txn, (repo, "master")) for repo in (C, A))
    with writing(store) as txn:
        branches.create_branch(txn, master(C), provenance=[master(B)])
    with writing(store) as txn:
        commitsets.drop_commit(txn, refs.resolve_commit(txn, (C, "master")))
        assert refs.resolve_commit(txn, (C, "master")).id == old.id
    with writing(store) as txn:
        commitsets.drop_commit(txn, refs.resolve_commit(txn, root.key), recursive=True)
    with store.read() as txn:
        rows = [refs.resolve_commit(txn, (repo, "master")) for repo in (A, B, C)]
        assert len({row.id for row in rows}) == 1
        sources = [[p.repo.name for p in commits.commit_info(txn, row).direct_provenance] for row in rows]
        assert sources == [[], ["a"], ["b"]]
