"""One data folder: an SQLite database (metadata, trees, small contents) and the packs beside it.

There is one writer at a time and any number of readers, each reader in a snapshot of its own. A write is durable when
`Store.write()` returns: the database runs in WAL mode with synchronous=FULL.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Self

from pachd.store import system

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_DATABASE = "pachd.db"
_LOCK = "lock"
_COLLECT_LOCK = "collect.lock"
_IDLE_READERS = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


class StoreError(Exception):
    """The data folder cannot be used: it is locked, of another format, missing or damaged. str() says what to do."""


class StoreInUse(StoreError):
    """Another process has the data folder."""


class WriterBusy(Exception):
    """Somebody else writes, and the caller did not want to wait."""


class Savepoint:
    """A part of a transaction that can be undone alone; see `Txn.savepoint`."""

    def __init__(self) -> None:
        self.discarded = False

    def discard(self) -> None:
        """Undo everything since the savepoint when its `with` block ends."""
        self.discarded = True


class Snapshot:
    """A reader's view of the store: nothing written after it was opened is seen.

    `db` is a connection inside BEGIN … ROLLBACK, with `sqlite3.Row` rows; it belongs to one thread at a time.
    """

    writable = False

    def __init__(self, store: "Store", db: sqlite3.Connection) -> None:
        self.store = store
        self.db = db


class Txn(Snapshot):
    """The writing transaction.

    `now` is its time in nanoseconds: one per transaction, greater than that of every earlier one. `state` is a dict in
    which the layers above keep what they collect until the end (values that are dicts, lists or sets are restored by a
    discarded savepoint).
    """

    writable = True

    def __init__(self, store: "Store", db: sqlite3.Connection, now: int) -> None:
        super().__init__(store, db)
        self.now = now
        self.state: dict[str, Any] = {}
        self.quiet = False  # subscribers are not told of it, as nothing changes that anybody waits for
        self.committing = False  # from here on only the database knows whether it happened
        self._after: list[Callable[[], object]] = []
        self._depth = 0

    def begin_part(self) -> None:
        """Begin a piece of work that has nothing to do with what this transaction did before: a time and a state of
        its own."""
        self.now = self.store._tick()
        self.state = {}
        self.quiet = False

    def after_commit(self, fn: Callable[[], object]) -> None:
        """Call `fn()` once this transaction is durable; never if it is rolled back."""
        self._after.append(fn)

    @contextmanager
    def savepoint(self) -> Iterator[Savepoint]:
        """`with txn.savepoint() as s:` — undone by an exception (which goes on) or by `s.discard()`."""
        point = Savepoint()
        name = f"sp{self._depth}"
        after = len(self._after)
        state = {k: v.copy() if isinstance(v, dict | list | set) else v for k, v in self.state.items()}
        self.db.execute(f"SAVEPOINT {name}")
        self._depth += 1
        try:
            yield point
        except BaseException:
            point.discarded = True
            raise
        finally:
            self._depth -= 1
            if point.discarded:
                if self.db.in_transaction:  # an I/O error may have ended the whole transaction already
                    self.db.execute(f"ROLLBACK TO {name}")
                del self._after[after:]
                self.state.clear()
                self.state.update(state)
            if self.db.in_transaction:
                self.db.execute(f"RELEASE {name}")


class Store:
    """An opened data folder. Make one with `Store.open`; `close()` it, or use it as a context manager.

    `version` grows with every committed write of this process. `shared` holds what the modules of the store keep for
    all transactions (caches of things that never change, open packs); what has a `close()` is closed with the store.
    """

    def __init__(self, path: str, lock_fd: int, writer: sqlite3.Connection, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self.version = 0
        self.shared: dict[str, Any] = {}
        self._lock_fd = lock_fd
        self._writer: sqlite3.Connection | None = writer
        self._write_lock = threading.Lock()
        self._write_owner: int | None = None
        self._last_now = 0
        self._readers: list[sqlite3.Connection] = []
        self._snapshots = 0
        self._open_snapshots: set[int] = set()
        self._mutex = threading.Lock()
        self._subscribers: list[Callable[[], object]] = []

    @classmethod
    def open(cls, path: str | os.PathLike[str], schema: Sequence[str] = (), create: bool = True) -> "Store":
        """Open (or make) the data folder `path` and run the SQL scripts `schema` (all `CREATE … IF NOT EXISTS`).

        Raises StoreError if another process has the folder, if it is of another format, or if it is missing and not
        `create`.
        """
        path = os.path.abspath(path)
        database = os.path.join(path, _DATABASE)
        if not _is_there(database):
            if not create:
                raise StoreError(f"no pachd data in {path}: there is no {_DATABASE}")
            os.makedirs(path, mode=0o700, exist_ok=True)
        lock_fd = cls._lock(path)
        try:
            writer = _connect(database)
            try:
                _prepare(writer, path, schema)
            except BaseException:
                writer.close()
                raise
            system.fsync_dir(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as err:  # the latter: a message about damaged text
            os.close(lock_fd)
            raise StoreError(f"cannot open {database}: {err}") from err
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(path, lock_fd, writer)

    @classmethod
    def view(cls, path: str | os.PathLike[str], guarded: bool = True) -> "Store":
        """Look at a data folder that another process may be serving: only `read` works.

        Nothing is collected there while the view is open, unless it is not ``guarded``: then only what commits hold
        that nobody deletes is sure to be readable. Raises StoreError as `open` does.
        """
        path = os.path.abspath(path)
        database = os.path.join(path, _DATABASE)
        if not _is_there(database):
            raise StoreError(f"no pachd data in {path}: there is no {_DATABASE}")
        fd = system.open_file(os.path.join(path, _COLLECT_LOCK), os.O_RDWR | os.O_CREAT)
        try:
            if guarded:
                fcntl.flock(fd, fcntl.LOCK_SH)
            db = _connect(database)
            try:
                db.execute("PRAGMA query_only=ON")
                _check_format(db, path)
            except BaseException:
                db.close()
                raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as err:
            os.close(fd)
            raise StoreError(f"cannot open {database}: {err}") from err
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, db, readonly=True)

    @contextmanager
    def collecting(self) -> Iterator[bool]:
        """`with store.collecting() as allowed:` — whether rows and packs that nobody needs may be deleted.

        They may not while another process views the folder; none begins to inside the block.
        """
        fd = system.open_file(os.path.join(self.path, _COLLECT_LOCK), os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(fd)

    @staticmethod
    def _lock(path: str) -> int:
        fd = system.open_file(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            who = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise StoreInUse(
                f"the data folder {path} is in use by another pachd" + (f" (process {who})" if who else "") + "; "
                "stop that one, or give this one a folder of its own"
            ) from err
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the writer, close all connections and free the folder. Closing twice is no error."""
        with self._write_lock:
            if self._writer is None:
                return
            with self._mutex:
                readers, self._readers = self._readers, []
            for reader in readers:
                reader.close()
            for resource in list(self.shared.values()):
                if hasattr(resource, "close"):
                    resource.close()
            self._writer.close()
            self._writer = None
            os.close(self._lock_fd)

    @contextmanager
    def write(self, quiet: bool = False, wait: bool = True) -> Iterator[Txn]:
        """`with store.write() as txn:` — the single writer; durable when the block ends, undone by an exception.

        quiet: subscribers are not told, as nothing changes that anybody can see. wait: for others who write; if not,
        it raises WriterBusy when there are any.
        Raises RuntimeError when the same thread already writes, StoreError when the store is closed.
        """
        me = threading.get_ident()
        if self._write_owner == me:
            raise RuntimeError("this thread already has the writing transaction: pass it on instead of opening another")
        if not self._write_lock.acquire(blocking=wait):
            raise WriterBusy
        try:
            db = self._writer
            if db is None:
                raise StoreError(f"the store in {self.path} is closed")
            if self.readonly:
                raise StoreError(f"the store in {self.path} is only looked at: nothing can be written")
            self._write_owner = me
            try:
                txn = Txn(self, db, self._tick())
                txn.quiet = quiet
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield txn
                    txn.committing = True
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
                self.version += not txn.quiet
            finally:
                self._write_owner = None
        finally:
            self._write_lock.release()
        for call in txn._after if txn.quiet else (*txn._after, *self._subscribers):
            try:
                call()
            except Exception:  # the write has happened: it must not look as if it failed
                log.exception("a callback after a write failed")

    def _tick(self) -> int:
        self._last_now = max(system.now_ns(), self._last_now + 1)
        return self._last_now

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection outside of any transaction, for what SQLite does only there; nobody writes
        meanwhile."""
        with self._write_lock:
            if self._writer is None or self.readonly:
                raise StoreError(f"the store in {self.path} cannot be written")
            yield self._writer

    def checkpoint(self) -> None:
        """Bring what was written so far from the log into the database, while others write.

        SQLite does so by itself at the end of a write; but while a reader is open for long the log grows, and the
        first write after that reader would take as long as the log is. Where it fails, the log stays.
        """
        try:
            with closing(_connect(os.path.join(self.path, _DATABASE))) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.DatabaseError:
            log.warning("the log of %s could not be brought into the database now", self.path, exc_info=True)

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """`with store.read() as snapshot:` — a reader in one snapshot; any number may be open at once."""
        with self._mutex:
            if self._writer is None:
                raise StoreError(f"the store in {self.path} is closed")
            db = self._readers.pop() if self._readers else None
            self._snapshots += 1
            number = self._snapshots
            self._open_snapshots.add(number)
        try:
            if db is None:
                db = _connect(os.path.join(self.path, _DATABASE))
                db.execute("PRAGMA query_only=ON")
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # BEGIN alone is lazy: this takes the snapshot now
            yield Snapshot(self, db)
        except BaseException:
            if db is not None:
                _end(db)
                db.close()
            raise
        finally:
            with self._mutex:
                self._open_snapshots.discard(number)
        _end(db)
        with self._mutex:
            if self._writer is not None and len(self._readers) < _IDLE_READERS:
                self._readers.append(db)
                return
        db.close()

    def open_snapshots(self) -> frozenset[int]:
        """The numbers of the snapshots that are open now. Each snapshot has a number of its own."""
        with self._mutex:
            return frozenset(self._open_snapshots)

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback()` after every committed write, in the writer's thread (be quick). Returns how to stop it."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe


def _is_there(path: str) -> bool:
    """Raises PermissionError where one may not look."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _connect(database: str) -> sqlite3.Connection:
    db = sqlite3.connect(database, isolation_level=None, check_same_thread=False, timeout=60, cached_statements=512)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    db.execute("PRAGMA cache_size=-16384")
    db.execute("PRAGMA mmap_size=67108864")
    db.execute("PRAGMA wal_autocheckpoint=4000")
    return db


def _check_format(db: sqlite3.Connection, path: str) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, FORMAT_VERSION):
        raise StoreError(
            f"the data in {path} has format {found}, this pachd knows format {FORMAT_VERSION}; "
            "use the pachd that wrote it"
        )


def _prepare(db: sqlite3.Connection, path: str, schema: Sequence[str]) -> None:
    _check_format(db, path)
    for script in (_SCHEMA, *schema):
        db.executescript(script)
    db.execute(f"PRAGMA user_version={FORMAT_VERSION}")


def _end(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")
