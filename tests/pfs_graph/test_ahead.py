"""Streams that are large commits of their own, whose trees are made ahead of the transaction."""

from collections.abc import Iterable

import pytest

from pachd.errors import PachError
from pachd.pfs import changes, collect, commits, filesets, refs, repos, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Store
from pachd.store.contents import shared
from pachd.types import Branch, Repo

IN = Repo("default", "in")
MASTER = pfs_pb2.Commit(repo=refs.repo_pb(IN), branch=pfs_pb2.Branch(repo=refs.repo_pb(IN), name="master"))


@pytest.fixture(autouse=True)
def prepared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LARGE", 200)
    with writing(store) as txn:
        repos.create_repo(txn, IN)


def filled(store: Store, files: Iterable[str]) -> Modification:
    modification = Modification(store)
    for path in files:
        modification.append(path, path.encode())
        modification.append("/last", b"")
        modification.append(path, b" twice")  # its pieces are joined
    return modification


def write(store: Store, modification: Modification, may_retry: bool = True) -> bool:
    with writing(store) as txn:
        if may_retry:
            filesets.may_retry(txn)
        return modify_file(txn, MASTER, modification)


def contents(store: Store) -> dict[str, bytes]:
    with store.read() as txn:
        view = View.of(txn, refs.resolve_commit(txn, MASTER))
        return {entry.path: b"".join(view.read(entry)) for entry in view.walk("/") if not entry.is_dir}


def made_of(files: Iterable[str]) -> dict[str, bytes]:
    return {path: path.encode() + b" twice" for path in files} | {"/last": b""}


FILES = [f"/d{n % 3}/f{n}" for n in range(50)]


def test_it_is_asked_for_and_taken(store: Store) -> None:
    with filled(store, FILES) as modification:
        with pytest.raises(filesets.Large) as large:
            write(store, modification)
        made = large.value.make()
        assert write(store, modification)
        made.close()
    assert contents(store) == made_of(FILES)
    with store.read() as txn:
        assert txn.db.execute("SELECT count(*) FROM change").fetchone()[0] == 0
        assert list(collect.check(txn, rehash=True)) == []
    collect.garbage(store)
    assert contents(store) == made_of(FILES)
    assert not shared(store).pins


def test_contents_in_packs(store: Store) -> None:
    big = bytes(range(256)) * 30_000
    with filled(store, FILES) as modification:
        modification.append("/big", big)
        modification.append("/small", b"1")
        modification.append("/big", b"2")  # joined from the pack, before a transaction has named it
        made = modification.make_ahead(MASTER)
        collect.garbage(store)
        write(store, modification)
        made.close()
    collect.garbage(store)
    assert contents(store) == made_of(FILES) | {"/big": big + b"2", "/small": b"1"}
    with store.read() as txn:
        assert txn.db.execute("SELECT count(*) FROM container WHERE data IS NULL").fetchone()[0] == 1
        assert list(collect.check(txn, rehash=True)) == []


def test_a_head_that_has_moved_asks_again(store: Store) -> None:
    with filled(store, FILES) as modification:
        modification.make_ahead(MASTER)
        with Modification(store) as other:
            other.append("/other", b"1")
            write(store, other)
        with pytest.raises(filesets.Large) as large:
            write(store, modification)
        large.value.make()
        write(store, modification)
    assert contents(store) == made_of(FILES) | {"/other": b"1"}


def test_without_a_fitting_tree_the_transaction_makes_it(store: Store) -> None:
    with filled(store, FILES) as modification:
        modification.make_ahead(MASTER)
        with Modification(store) as other:
            other.append("/other", b"1")
            write(store, other)
        write(store, modification, may_retry=False)
    assert contents(store) == made_of(FILES) | {"/other": b"1"}


def test_a_commit_that_was_opened_meanwhile_takes_it(store: Store) -> None:
    with filled(store, FILES) as modification:
        modification.make_ahead(MASTER)
        with writing(store) as txn:
            opened = commits.start_commit(txn, Branch(IN, "master"))
        assert not write(store, modification)
    assert contents(store) == made_of(FILES)
    with pytest.raises(filesets.Large) as large, writing(store) as txn:
        filesets.may_retry(txn)
        commits.finish_commit(txn, opened)
    made = large.value.make()
    with writing(store) as txn:
        filesets.may_retry(txn)
        commits.finish_commit(txn, opened)
    made.close()
    assert contents(store) == made_of(FILES)


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    nowhere = pfs_pb2.Commit(repo=refs.repo_pb(Repo("default", "nowhere")), branch=MASTER.branch)
    nowhere.branch.repo.CopyFrom(nowhere.repo)
    with filled(store, FILES) as modification:
        modification.make_ahead(nowhere)
        with pytest.raises(PachError, match="not found"), writing(store) as txn:
            modify_file(txn, nowhere, modification)
    with filled(store, FILES) as modification:
        modification.make_ahead(MASTER)  # and then the client is gone
    assert collect.garbage(store).containers
    with store.read() as txn:
        for table in ("page", "container", "change"):
            assert txn.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
