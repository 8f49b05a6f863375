"""Garbage collection of files: which trees and contents are in use, and the thread that collects the others."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from typing import Self

from pachd.pfs import changes, temporary
from pachd.store import Snapshot, Store, system
from pachd.store.fsck import Fsck, database
from pachd.store.gc import Collected, Pace, Roots, Stopped, collect

log = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between looks for something to collect
_SHARE = 0.25  # of one core, while a collection runs
_REST = 20  # times as long as a collection took, nothing is collected; less where the interval is shorter, in seconds
_ANYWAY = 60  # intervals after which any change is reason enough: overwritten contents are not counted


def roots(txn: Snapshot) -> Roots:
    """Everything that is in use."""
    trees = {row[0] for row in txn.db.execute("SELECT DISTINCT root FROM commits WHERE root IS NOT NULL")}
    return Roots(trees, _refs(txn))


def _refs(txn: Snapshot) -> Iterator[tuple[int, ...]]:
    for (ops,) in txn.db.execute("SELECT ops FROM change"):
        yield from changes.references(changes.unpack(ops))
    for ops in temporary.rows_in_use(txn):
        yield from changes.references(changes.unpack(ops))


def garbage(store: Store, pace: Pace | None = None) -> Collected:
    """Drop expired file sets, changes of deleted commits, and all pages and contents that nothing uses.

    May run beside everything else: nobody waits for it longer than a few milliseconds. Raises Stopped, see `Pace`.
    """
    return collect(store, roots, _expire, pace)


def _expire(store: Store) -> None:
    with store.read() as snapshot:  # the search takes a while where there is much; nobody waits for it here
        gone = snapshot.db.execute(
            "SELECT DISTINCT commit_pk FROM change WHERE commit_pk NOT IN (SELECT pk FROM commits)"
        ).fetchall()
    with store.write(quiet=True) as txn:
        temporary.expire(txn)
        txn.db.executemany("DELETE FROM change WHERE commit_pk=?", [(row["commit_pk"],) for row in gone])


def check(txn: Snapshot, rehash: bool = False) -> Iterator[str]:
    """What is wrong with the database, the packs and the files of every commit, open change and file set, a sentence
    each.

    rehash: read every byte and compare hashes, which takes as long as reading the whole store.
    """
    yield from database(txn)
    try:
        yield from _check_files(txn, rehash)
    except sqlite3.DatabaseError as err:
        yield f"database: {err}; what is behind the damage could not be checked"


def _check_files(txn: Snapshot, rehash: bool) -> Iterator[str]:
    fsck = Fsck(txn, rehash)
    yield from fsck.packs()
    for row in txn.db.execute("SELECT id, root FROM commits WHERE root IS NOT NULL ORDER BY pk").fetchall():
        for error in fsck.tree(row["root"]):
            yield f"commit {row['id']}: {error}"
    for name, ops in _kept_ops(txn):
        try:
            added = [op[1:] for op in changes.unpack(ops) if op[0] == changes.ADD]
        except Exception as err:
            yield f"{name}: its list of changes is damaged: {err or type(err).__name__}"
            continue
        for entry in added:
            for error in fsck.file(entry):
                yield f"{name}: {error}"


def _kept_ops(txn: Snapshot) -> Iterator[tuple[str, bytes]]:
    """(where they belong, the operations) of open commits and file sets."""
    for row in txn.db.execute("SELECT h.pk, h.ops, c.id FROM change h LEFT JOIN commits c ON c.pk = h.commit_pk"):
        if row["id"] is not None:  # else its commit was deleted, and the next collection takes it
            yield f"open commit {row['id']}", row["ops"]
    for row in txn.db.execute("SELECT id, ops FROM file_set"):
        try:
            rows = temporary.unpack_rows(row["ops"])
        except Exception:
            rows = [b""]
        for ops in rows:
            yield f"file set {row['id']}", ops


class Collector:
    """Collects in a thread of its own while pachd serves: a context manager.

    It looks every `interval` seconds (0: never). Commits that were deleted and file sets that have expired are reasons
    to collect at once; anything else that was written, after an hour. `runs`, `last` and `seconds` tell what it did.
    """

    def __init__(self, store: Store, interval: float = INTERVAL) -> None:
        self.runs = 0
        self.last: Collected | None = None
        self.seconds = 0.0
        self._store, self._interval = store, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def __enter__(self) -> Self:
        if self._interval:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._interval:
            self._thread.join()

    def _run(self) -> None:
        deleted, version, looks = -1, -1, 0
        wait = self._interval
        while not self._stop.wait(wait):
            wait, looks = self._interval, looks + 1
            try:
                gone, expired = self._reasons()
                now = self._store.version
                if gone == deleted and not expired and (now == version or looks < _ANYWAY):
                    continue
                began = system.monotonic()
                done = garbage(self._store, Pace(_SHARE, self._stop))
                took = system.monotonic() - began
                deleted, version, looks = gone, now, 0
                wait = max(wait, min(took * min(_REST, self._interval), 3600.0))
                self.runs, self.last, self.seconds = self.runs + 1, done, self.seconds + took
                if done:
                    log.info("collected %s in %.1f s", done, took)
            except Stopped:
                return
            except Exception:  # a full or damaged disk: serving goes on, and it is tried again
                log.exception("garbage collection failed; it is tried again later")
                wait = max(wait, self._interval * 10)

    def _reasons(self) -> tuple[int, bool]:
        """(how many commits were ever deleted, whether a file set has expired)."""
        with self._store.read() as snapshot:
            made, left = snapshot.db.execute(
                "SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='commits'), count(*) FROM commits"
            ).fetchone()
            return made - left, temporary.any_expired(snapshot, system.now_ns())
