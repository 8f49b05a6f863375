"""Transactions, snapshots, the folder lock and the format version."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.store import Store, StoreError

SCHEMA = ["CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY)"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", SCHEMA) as opened:
        yield opened


def rows(store: Store) -> list[int]:
    with store.read() as snapshot:
        return [row["a"] for row in snapshot.db.execute("SELECT a FROM t ORDER BY a")]


def test_write_is_seen_after_commit_and_survives(tmp_path: Path) -> None:
    with Store.open(tmp_path, SCHEMA) as store:
        with store.write() as txn:
            txn.db.execute("INSERT INTO t VALUES (1)")
            assert rows(store) == []
        assert rows(store) == [1]
    with Store.open(tmp_path, SCHEMA) as store:
        assert rows(store) == [1]


def test_exception_undoes(store: Store) -> None:
    with pytest.raises(ValueError, match="stop"), store.write() as txn:
        txn.db.execute("INSERT INTO t VALUES (1)")
        txn.after_commit(lambda: pytest.fail("called after a rollback"))
        raise ValueError("stop")
    assert rows(store) == [] and store.version == 0


def test_snapshot_does_not_move(store: Store) -> None:
    with store.read() as before:
        with store.write() as txn:
            txn.db.execute("INSERT INTO t VALUES (1)")
        assert before.db.execute("SELECT count(*) FROM t").fetchone()[0] == 0
    assert rows(store) == [1]


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"), store.read() as snapshot:
        snapshot.db.execute("INSERT INTO t VALUES (1)")


def test_savepoint_discards_rows_hooks_and_state(store: Store) -> None:
    called: list[int] = []
    with store.write() as txn:
        txn.state["kept"] = {1}
        txn.db.execute("INSERT INTO t VALUES (1)")
        with txn.savepoint() as point:
            txn.db.execute("INSERT INTO t VALUES (2)")
            txn.after_commit(lambda: called.append(2))
            txn.state["kept"].add(2)
            point.discard()
        with pytest.raises(ValueError), txn.savepoint():
            txn.db.execute("INSERT INTO t VALUES (3)")
            raise ValueError
        with txn.savepoint(), txn.savepoint():
            txn.db.execute("INSERT INTO t VALUES (4)")
        txn.after_commit(lambda: called.append(1))
        assert txn.state == {"kept": {1}}
    assert rows(store) == [1, 4] and called == [1]


def test_subscribers_and_version(store: Store) -> None:
    seen: list[int] = []
    stop = store.subscribe(lambda: seen.append(store.version))
    with store.write():
        pass
    stop()
    with store.write():
        pass
    assert seen == [1] and store.version == 2


def test_now_always_grows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pachd.store.system.now_ns", lambda: 1000)
    times = []
    for _ in range(3):
        with store.write() as txn:
            times.append(txn.now)
    assert times == [1000, 1001, 1002]


def test_one_writer_at_a_time(store: Store) -> None:
    def add(start: int) -> None:
        for n in range(start, start + 25):
            with store.write() as txn:
                txn.db.execute("INSERT INTO t VALUES (?)", (n,))

    threads = [threading.Thread(target=add, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(store)) == 100


def test_nested_write_is_an_error(store: Store) -> None:
    with store.write(), pytest.raises(RuntimeError, match="already"), store.write():
        pass


def test_second_opener_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path), pytest.raises(StoreError, match="in use by another pachd .process"):
        Store.open(tmp_path)
    Store.open(tmp_path).close()


def test_other_format_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "pachd.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="format 99"):
        Store.open(tmp_path)


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no pachd data"):
        Store.open(tmp_path / "none", create=False)
    (tmp_path / "pachd.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="cannot open"):
        Store.open(tmp_path)


def test_closed_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"), store.write():
        pass
    with pytest.raises(StoreError, match="closed"), store.read():
        pass


def test_a_failing_callback_does_not_make_a_write_look_failed(store: Store) -> None:
    called: list[int] = []
    store.subscribe(lambda: 1 // 0)
    with store.write() as txn:
        txn.db.execute("INSERT INTO t VALUES (1)")
        txn.after_commit(lambda: 1 // 0)
        txn.after_commit(lambda: called.append(1))
    assert rows(store) == [1] and called == [1]
