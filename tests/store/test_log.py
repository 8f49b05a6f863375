"""Room kept behind the database's log: what a crash leaves, a full disk, a log that was cut."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pachd.store import Store, log, system

SCHEMA = ["CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, data BLOB)"]
WAL = "pachd.db-wal"


def add(store: Store, count: int, size: int = 20_000) -> None:
    for _ in range(count):
        with store.write() as txn:
            txn.db.execute("INSERT INTO t (data) VALUES (?)", (os.urandom(size),))


def rows(path: Path) -> list[bytes]:
    """What is in the store at `path`, which is whole."""
    with Store.open(path, SCHEMA, create=False) as store, store.read() as snapshot:
        assert snapshot.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [row["data"] for row in snapshot.db.execute("SELECT data FROM t ORDER BY a")]


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path, SCHEMA) as store:
        add(store, 5)
        assert (tmp_path / WAL).stat().st_size < log.START


def test_what_a_crash_leaves_is_read_up_to_the_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "START", 50_000)
    monkeypatch.setattr(log, "STEP", 200_000)
    data, image = tmp_path / "data", tmp_path / "image"
    with Store.open(data, SCHEMA) as store:
        roomy = 0
        for n in range(30):
            add(store, 1)
            image.mkdir()
            for name in ("pachd.db", WAL):  # without what only the running process knows
                shutil.copy(data / name, image)
            roomy += (image / WAL).read_bytes().endswith(bytes(10_000))
            with store.read() as snapshot:
                expected = [row["data"] for row in snapshot.db.execute("SELECT data FROM t ORDER BY a")]
            assert rows(image) == expected and len(expected) == n + 1
            shutil.rmtree(image)
        assert roomy > 15  # most writes found room


def test_a_log_grows_no_further_than_it_is_used(tmp_path: Path) -> None:
    with Store.open(tmp_path, SCHEMA) as store:
        add(store, 60, 500_000)  # twice what is brought into the database at a time
        full = (tmp_path / WAL).stat().st_size
        assert full < log.LIMIT + log.STEP + 1_000_000
        add(store, 60, 500_000)
        assert (tmp_path / WAL).stat().st_size == full


def test_a_log_that_was_cut_gets_room_again(tmp_path: Path) -> None:
    with Store.open(tmp_path, SCHEMA) as store:
        add(store, 4, 500_000)
        with store.exclusive() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert (tmp_path / WAL).stat().st_size == 0
        add(store, 1)
        assert (tmp_path / WAL).stat().st_size < log.START
        add(store, 4, 500_000)
        assert (tmp_path / WAL).read_bytes().endswith(bytes(10_000))
    assert len(rows(tmp_path)) == 9


def test_a_disk_without_room_for_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def full(fd: int, data: bytes, offset: int) -> None:
        asked.append(offset)
        os.pwrite(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store.open(tmp_path, SCHEMA) as store:
        add(store, 2, 400_000)
        monkeypatch.setattr(system, "write_at", full)
        add(store, 1, 400_000)
        assert asked == [(tmp_path / WAL).stat().st_size]  # and what it had taken is given back
        add(store, 3, 400_000)
        assert len(asked) == 1
    assert len(rows(tmp_path)) == 6


WRITER = """
import sys
from pachd.store import Store
store = Store.open(sys.argv[1], ["CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, data BLOB)"])
n = 0
while True:
    n += 1
    with store.write() as txn:
        txn.db.execute("INSERT INTO t (data) VALUES (?)", (n.to_bytes(4, "big") * 2000,))
    print(n, flush=True)
"""


@pytest.mark.parametrize("told", [1, 140, 700, 2100])
def test_killed_while_it_writes(tmp_path: Path, told: int) -> None:
    """Before, while and after the log has got room: what was acknowledged is there."""
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last == told:
                process.kill()
    found = rows(tmp_path)
    assert last >= told and len(found) - last in (0, 1)  # one more may have been on its way
    assert found == [n.to_bytes(4, "big") * 2000 for n in range(1, len(found) + 1)]
