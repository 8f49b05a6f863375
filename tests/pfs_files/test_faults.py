"""An error at any database or file operation leaves the old state or the new one, and a store that still works."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pachd.pfs import collect
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.pfs.modify import Modification
from pachd.store import Store, system
from tests.pfs_files.bare import BARE_COMMITS, Repo, delete, put

BIG = bytes(range(256)) * 20_000  # goes to a pack


class Counted:
    """Counts calls of what can fail, and fails the one it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at = 0

    def hit(self, error: Exception) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise error


class FailingConnection:
    """A connection whose writing statements can be made to fail."""

    def __init__(self, db: sqlite3.Connection, counted: Counted) -> None:
        self._db, self._counted = db, counted

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        if sql.split()[0] not in ("SELECT", "ROLLBACK", "PRAGMA"):
            self._counted.hit(sqlite3.OperationalError("disk I/O error"))
        return self._db.execute(sql, *args)  # type: ignore[arg-type]

    def executemany(self, sql: str, rows: list[tuple[object, ...]]) -> sqlite3.Cursor:
        self._counted.hit(sqlite3.OperationalError("database or disk is full"))
        return self._db.executemany(sql, rows)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        self._db.close()


def change(repo: Repo) -> None:
    repo.start()
    repo.write(put("/big", BIG), delete("/d/"), put("/d/new", b"new"), put("/a", b"appended"))
    repo.finish()


def open_store(folder: Path) -> Store:
    return Store.open(folder, [FILES_SCHEMA, BARE_COMMITS])


def test_every_operation_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    for name in ("write", "fsync", "open_file"):
        original: Callable[..., object] = getattr(system, name)

        def failing(*args: object, original: Callable[..., object] = original) -> object:
            counted.hit(OSError(28, "No space left on device"))
            return original(*args)

        monkeypatch.setattr(system, name, failing)
    before = {"/a": b"1", "/d/old": b"2"}
    after = {"/a": b"1appended", "/big": BIG, "/d/new": b"new"}
    fail_at = 0
    seen = set()
    while True:
        fail_at += 1
        folder = tmp_path / str(fail_at)
        with open_store(folder) as store:
            repo = Repo(store)
            repo.commit(put("/a", b"1"), put("/d/old", b"2"))
            first = repo.head
            store._writer = FailingConnection(store._writer, counted)  # type: ignore[arg-type, assignment]
            counted.calls, counted.fail_at = 0, fail_at
            try:
                change(repo)
            except (OSError, sqlite3.OperationalError):
                failed = True
            else:
                failed = False
            counted.fail_at = 0
            with store.read() as txn:
                assert list(collect.check(txn, rehash=True)) == []
            assert repo.contents(first) == before
            if repo.head != first:
                state = repo.contents()
                assert state in (before, after)
                seen.add(state == after)
        with open_store(folder) as store:  # and as another process finds it
            again = Repo(store)
            again.head = repo.head
            assert again.contents(first) == before
            if again.head != first:
                assert again.contents() == state
            with store.read() as txn:
                assert list(collect.check(txn, rehash=True)) == []
                packs = txn.db.execute("SELECT count(*) FROM container WHERE data IS NULL").fetchone()[0]
            assert len(list((folder / "packs").iterdir())) == packs
            again.head = first
            change(again)
            assert again.contents() == after
        if not failed:
            break
    assert fail_at > 12 and seen == {True, False}


def test_a_modification_that_is_not_applied_leaves_nothing(repo: Repo, store: Store) -> None:
    repo.start()
    with Modification(store) as modification:
        modification.append("/big", BIG)
        modification.seal()
        assert len(list(Path(store.path, "packs").iterdir())) == 1
    assert list(Path(store.path, "packs").iterdir()) == []
    assert repo.contents() == {}


def test_rolled_back_after_apply(repo: Repo, store: Store) -> None:
    repo.start()
    with pytest.raises(ValueError, match="no"), Modification(store) as modification:
        modification.append("/big", BIG)
        modification.append("/small", b"1")
        with store.write() as txn:
            modification.apply(txn, repo.row(txn))
            raise ValueError("no")
    assert list(Path(store.path, "packs").iterdir()) == []
    repo.write(put("/small", b"2"))
    assert repo.contents() == {"/small": b"2"}
