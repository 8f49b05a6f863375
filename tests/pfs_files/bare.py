"""Commits without anything around them: rows that `pachd.pfs.filesets` reads, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pachd.pfs import filesets
from pachd.pfs.modify import Modification
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Store

BARE_COMMITS = """
CREATE TABLE IF NOT EXISTS commits (pk INTEGER PRIMARY KEY, id TEXT, parent_pk INTEGER, state INTEGER, error TEXT,
    root BLOB, finishing INTEGER);
"""


class Row(NamedTuple):
    pk: int
    id: str
    parent_pk: int | None
    state: int
    error: str
    root: bytes | None
    finishing: int | None
    repo: str = "default/r"


class Repo:
    """A line of commits. `head` is the last one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.head: int | None = None

    def row(self, txn: Snapshot, pk: int | None = None) -> Row:
        found = txn.db.execute(
            "SELECT pk, id, parent_pk, state, error, root, finishing FROM commits WHERE pk=?", (pk or self.head,)
        ).fetchone()
        return Row(*found)

    def start(self) -> int:
        with self.store.write() as txn:
            cursor = txn.db.execute(
                "INSERT INTO commits (id, parent_pk, state, error) VALUES (hex(randomblob(16)), ?, ?, '')",
                (self.head, pfs_pb2.STARTED),
            )
        assert cursor.lastrowid is not None
        self.head = cursor.lastrowid  # only now: the commit may fail
        return self.head

    def write(self, *steps: Callable[[Modification], object]) -> None:
        """One stream into the open head."""
        with Modification(self.store) as modification:
            for step in steps:
                step(modification)
            modification.seal()
            with self.store.write() as txn:
                modification.apply(txn, self.row(txn))

    def finish(self) -> filesets.Finished:
        with self.store.write() as txn:
            done = filesets.finish(txn, self.row(txn))
            txn.db.execute(
                "UPDATE commits SET state=?, root=?, error=?, finishing=? WHERE pk=?",
                (pfs_pb2.FINISHED, done.root, done.error, txn.now, self.head),
            )
        return done

    def commit(self, *steps: Callable[[Modification], object]) -> filesets.Finished:
        """Start, one stream, finish."""
        self.start()
        self.write(*steps)
        return self.finish()

    def view(self, txn: Snapshot, pk: int | None = None, datum: str = "") -> View:
        return View.of(txn, self.row(txn, pk), datum)

    def contents(self, pk: int | None = None) -> dict[str, bytes]:
        """{path, and its datum if it is not the default: bytes} of every file, past all checks."""
        with self.store.read() as txn:
            view = self.view(txn, pk)
            view.sound = True
            return {
                e.path + ("" if e.datum == "default" else f" {e.datum}"): b"".join(view.read(e))
                for e in view.walk("/")
                if not e.is_dir
            }


def put(path: str, data: bytes = b"x", datum: str = "") -> Callable[[Modification], object]:
    return lambda m: m.append(path, data, datum)


def delete(path: str, datum: str = "") -> Callable[[Modification], object]:
    return lambda m: m.delete(path, datum)
