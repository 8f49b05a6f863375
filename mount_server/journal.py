"""The staging journal: what writers were told is safe, until pachd has it.

A change is appended to the staging log, which a thread moves into an index when it has grown: one SQLite database (WAL)
that holds names, states and small contents. Larger contents are files beside it. A change survives kill -9 as soon as
`put` has returned; `sync` makes everything before it survive a power cut too, and a thread does that ten times a second
by itself. A second server on the same state directory is refused.
"""

import contextlib
import fcntl
import itertools
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mount_server.disk import disk, sync_disk_of
from mount_server.errors import Conflict, MountError, NoSpace
from mount_server.journal_tables import FORMAT, SCHEMA
from mount_server.journal_tables import Intent as Intent
from mount_server.journal_tables import MountRow as MountRow
from mount_server.staging_log import Staged as Staged
from mount_server.staging_log import StagingLog, staged_of

INLINE_LIMIT = 128 * 1024  # bytes; larger contents become files
INLINE_BUDGET = 64 << 20  # bytes of contents that a mount keeps in memory; above it,
INLINE_LEAST = 4096  # contents larger than this become files
SYNC_INTERVAL = 0.1  # seconds a closed file may wait before it survives a power cut
MANY_BLOBS = 50  # files that are synced faster with their whole disk than one by one
KEPT_RESULTS = 200
LOG_SIZE = 32 << 20  # bytes of staging log that are worth moving into the index
MOVED_AT_ONCE = 500  # changes moved in one transaction; commits wait for it to end
CHECKPOINT_SIZE = 64 << 20  # bytes of write-ahead log that are worth moving into the database


class Journal:
    """The journal of one state directory.

    :param directory: is created if it is not there.
    :raises Conflict: another server uses it, or a newer version wrote it.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.blobs = directory / "blobs"
        self.blobs.mkdir(exist_ok=True, mode=0o700)
        self._lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_fd)
            raise Conflict(
                f"state directory {directory} is used by another mount-server; stop it or choose another"
            ) from None
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._writing = threading.Lock()  # SQLite would let a writer poll for its turn, and give up after 5 seconds
        self._file = directory / "journal.db"
        self._db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        # a checkpoint waits for the disk: the thread that syncs does it, not whoever closes a file
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise Conflict(
                f"state directory {directory} was written by a newer mount-server (format {version}); update this one"
            )
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version={FORMAT}")
        self._wal_fd = os.open(directory / "journal.db-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._log = StagingLog(directory / "log")
        highest = self._db.execute(
            "SELECT MAX(COALESCE((SELECT MAX(seq) FROM staged), 0), COALESCE((SELECT MAX(seq) FROM intents), 0))"
        ).fetchone()[0]
        self._seq: Iterator[int] = itertools.count(max(highest, self._log.highest()) + 1)
        self._unsynced = self._unsynced_log = False
        self._unsynced_blobs: set[str] = set()
        self._closed = threading.Event()
        self._drop_orphans()
        self.sync()
        self._syncing = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
        self._syncing.start()

    def close(self) -> None:
        """Make everything durable and let go of the state directory. What the log holds stays there."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._syncing.join()
        self.sync()
        with self._lock:
            self._log.close()  # the next start moves what is in it
            self._db.close()
            os.close(self._wal_fd)
            os.close(self._lock_fd)

    def next_seq(self) -> int:
        """A number greater than all before."""
        return next(self._seq)

    # --- staged changes ---------------------------------------------------------------------------------------------

    def load(self, mount: str) -> dict[str, Staged]:
        """All staged changes of a mount. A content file that is longer or shorter than noted counts as it is."""
        with self._lock:
            found = self._indexed("mount=?", (mount,))
            for path, change in self._log.changes(mount).items():
                if change is None:
                    found.pop(path, None)
                else:
                    found[path] = change
        return {path: self._as_it_is(found[path]) for path in sorted(found)}

    def find(self, mount: str, path: str) -> Staged | None:
        """What is noted for one path."""
        with self._lock:
            logged, staged = self._log.find(mount, path)
            if not logged:
                staged = self._indexed("mount=? AND path=?", (mount, path)).get(path)
        return None if staged is None else self._as_it_is(staged)

    def _indexed(self, where: str, arguments: tuple[str, ...]) -> dict[str, Staged]:
        rows = self._db.execute(
            "SELECT path, kind, seq, size, mtime, data, blob, project, repo, commit_id, source_path, hash"
            " FROM staged WHERE " + where,
            arguments,
        )
        return {path: staged_of(row) for path, *row in rows}

    def _as_it_is(self, staged: Staged) -> Staged:
        if staged.blob:
            with contextlib.suppress(OSError):
                return staged._replace(size=os.stat(self.blobs / staged.blob).st_size)
        return staged

    def put(
        self, mount: str, puts: Sequence[tuple[str, Staged]], forget: Iterable[str] = (), sync: bool = False
    ) -> None:
        """Note changes and forget others, all or none; they survive kill -9, and with `sync` a power cut too.

        :raises NoSpace: the disk is full; nothing has changed.
        """
        with self._lock:
            self._log.append(mount, puts, forget)
            self._unsynced_log = True
            for _, staged in puts:
                if staged.blob:
                    self._unsynced_blobs.add(staged.blob)
        if sync:
            self.sync()

    def forget(self, mount: str, done: Iterable[tuple[str, int]], result: tuple[str, str] | None = None) -> None:
        """Forget changes that pachd has, each only if it has not changed since, and the commit's intent with them.

        :param result: idempotency key and body of the answer, kept for a caller who asks again.
        """
        with self._lock:
            logged = self._log.changes(mount)
            indexed = dict(self._db.execute("SELECT path, seq FROM staged WHERE mount=?", (mount,)))
            gone = []
            for path, seq in done:
                staged = logged.get(path)
                if (staged.seq if staged is not None else None if path in logged else indexed.get(path)) == seq:
                    gone.append(path)
            if gone:
                self._log.append(mount, (), gone)
                self._unsynced_log = True
        # the intent goes last: as long as it is there, a restart finds out what became of the commit
        self.sync()
        with self._lock, self._transaction():
            self._db.execute("DELETE FROM intents WHERE mount=?", (mount,))
            if result is not None and result[0]:
                self._db.execute(
                    "INSERT OR REPLACE INTO results VALUES (?,?,?,?)", (result[0], mount, result[1], time.time_ns())
                )
                self._db.execute(
                    "DELETE FROM results WHERE idempotency_key NOT IN"
                    " (SELECT idempotency_key FROM results ORDER BY time DESC LIMIT ?)",
                    (KEPT_RESULTS,),
                )
        # a power cut may undo this: the intent is there again then, and leads to the same

    # --- commits ----------------------------------------------------------------------------------------------------

    def intend(self, mount: str, intent: Intent) -> None:
        """Note durably that a commit begins, or what has become known about it."""
        with self._lock, self._transaction():
            self._db.execute("INSERT OR REPLACE INTO intents VALUES (?,?,?,?,?,?,?,?)", (mount, *intent))
        self.sync()

    def intent(self, mount: str) -> Intent | None:
        """The mount's commit that was begun and not yet seen to its end."""
        with self._lock:
            row = self._db.execute(
                "SELECT idempotency_key, seq, started, parent, description, metadata, commit_id FROM intents"
                " WHERE mount=?",
                (mount,),
            ).fetchone()
        return Intent(*row) if row else None

    def abandon(self, mount: str) -> None:
        """Forget a commit that never happened; its changes stay staged."""
        with self._lock, self._transaction():
            self._db.execute("DELETE FROM intents WHERE mount=?", (mount,))

    def result(self, mount: str, key: str) -> str | None:
        """The answer given to an earlier commit with this idempotency key."""
        with self._lock:
            row = self._db.execute(
                "SELECT body FROM results WHERE idempotency_key=? AND mount=?", (key, mount)
            ).fetchone()
        return str(row[0]) if row else None

    # --- mounts -----------------------------------------------------------------------------------------------------

    def mounts(self) -> list[MountRow]:
        """The mounts to restore, in the order of their names."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM mounts ORDER BY name").fetchall()
        return [MountRow(*row) for row in rows]

    def save_mounts(self, rows: Iterable[MountRow], sync: bool = True) -> None:
        """Note mounts, all or none; without `sync`, so that a power cut may undo it."""
        with self._lock, self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO mounts VALUES (?,?,?,?,?,?,?,?,?)", rows)
        if sync:
            self.sync()

    def remove_mount(self, name: str) -> None:
        """Forget a mount together with whatever is left of its staged changes."""
        left = list(self.load(name))
        if left:
            self.put(name, (), left, sync=True)
        with self._lock, self._transaction():
            for table, column in (("mounts", "name"), ("intents", "mount")):
                self._db.execute(f"DELETE FROM {table} WHERE {column}=?", (name,))
        self.sync()

    def forget_others(self, names: set[str]) -> None:
        """Forget what is staged for mounts of other names: scratch files of a datum that nobody sees any more."""
        with self._lock:
            rows = self._db.execute("SELECT DISTINCT mount FROM staged").fetchall()
            staged = {row[0] for row in rows} | self._log.mounts()
        for name in staged - names:
            for change in self.load(name).values():
                if change.blob:
                    self.drop_blob(change.blob)
            self.remove_mount(name)

    # --- content files ----------------------------------------------------------------------------------------------

    def new_blob(self) -> str:
        """The name of a new content file in `blobs`."""
        return uuid.uuid4().hex

    def drop_blob(self, name: str) -> None:
        """Delete a content file that no row names."""
        (self.blobs / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Make everything noted so far survive a power cut.

        :raises NoSpace, MountError: the disk refuses; the next call tries again.
        """
        with self._sync_lock, disk("what was staged"):  # another thread's half-done sync is waited for
            with self._lock:
                blobs, self._unsynced_blobs = self._unsynced_blobs, set()
                index, self._unsynced = self._unsynced, False
                log, self._unsynced_log = self._unsynced_log, False
            try:
                self._sync(blobs, index, log)
            except BaseException:
                with self._lock:
                    self._unsynced_blobs |= blobs
                    self._unsynced |= index
                    self._unsynced_log |= log
                raise

    def _sync(self, blobs: set[str], index: bool, log: bool) -> None:
        if len(blobs) > MANY_BLOBS:
            sync_disk_of(self.blobs)
            blobs = set()
        for blob in blobs:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self.blobs / blob, os.O_RDONLY)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
        if blobs:
            fd = os.open(self.blobs, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        if log:
            self._log.sync()
        if index:
            os.fdatasync(self._wal_fd)

    def _sync_loop(self) -> None:
        db = sqlite3.connect(self._file, isolation_level=None)  # of its own: writers go on during a checkpoint
        db.execute("PRAGMA synchronous=NORMAL")
        try:
            while not self._closed.wait(SYNC_INTERVAL):
                # a full disk is noticed, and told, by the next writer
                with contextlib.suppress(OSError, MountError, sqlite3.OperationalError):
                    if self._unsynced or self._unsynced_log:
                        self.sync()
                    self._rotate(LOG_SIZE)
                    self._move(db)
                    self._checkpoint(db)
        finally:
            db.close()

    def _rotate(self, limit: int) -> None:
        """Let a log of more than `limit` bytes wait to be moved, and go on in a new one."""
        if self._log.size <= limit:
            return
        file = self._log.prepare()
        with self._sync_lock:  # whoever wants the old file synced waits here
            with self._lock:
                blobs, self._unsynced_blobs = self._unsynced_blobs, set()
                old = self._log.rotate(file)
            try:
                self._sync(blobs, False, False)
                os.fdatasync(old)
            finally:
                os.close(old)

    def _move(self, db: sqlite3.Connection) -> None:
        """Move the waiting part of the log into the index, in steps. Done twice, it comes to the same."""
        while self._log.waiting:
            batch = self._log.waiting[0]
            changes = [(m, path, s) for m, paths in batch.changes.items() for path, s in paths.items()]
            for at in range(0, len(changes), MOVED_AT_ONCE):
                time.sleep(0.001)  # whoever waits to write has a turn
                some = changes[at : at + MOVED_AT_ONCE]
                if self._unsynced_log:  # what is closed meanwhile does not wait for all this
                    self.sync()
                with self._transaction(db):
                    db.executemany(
                        "INSERT OR REPLACE INTO staged VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                        [(m, p, *s[:6], *s.source, s.source_path, s.hash) for m, p, s in some if s is not None],
                    )
                    db.executemany(
                        "DELETE FROM staged WHERE mount=? AND path=?", [(m, p) for m, p, s in some if s is None]
                    )
            os.fdatasync(self._wal_fd)
            with self._lock:
                self._log.moved()

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        if os.fstat(self._wal_fd).st_size < CHECKPOINT_SIZE:
            return
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # nearly all of it, beside the writers
        with self._lock:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what they have added meanwhile

    def _drop_orphans(self) -> None:
        """Remove content files that no row names: their writer had not closed them when the process died."""
        known = {row[0] for row in self._db.execute("SELECT blob FROM staged WHERE blob != ''")} | self._log.blobs()
        for entry in os.scandir(self.blobs):
            if entry.name not in known:
                os.unlink(entry.path)

    @contextlib.contextmanager
    def _transaction(self, db: sqlite3.Connection | None = None) -> Iterator[None]:
        db = db or self._db
        try:
            with self._writing:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # a full disk may have ended it already
                        db.execute("ROLLBACK")
                    raise
        except sqlite3.OperationalError as e:
            if "full" in str(e) or "disk I/O" in str(e):
                raise NoSpace("the disk with the mount server's state directory is full: nothing was noted") from e
            raise
        self._unsynced = True
