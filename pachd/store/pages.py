"""Content-addressed pages: the rows that trees of paths are made of.

A page never changes, so any number of readers share one cache. Pages made by a writer, or made to look at an open
commit, stay in the `Pages` object until `flush` writes those that a root reaches. `PagesAhead` writes them before the
transaction that will need them.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from pachd.store.store import Snapshot, Store, StoreError

PAGE_SCHEMA = "CREATE TABLE IF NOT EXISTS page (id BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;"

_CACHED_PAGES = 2000
_BATCH = 2 << 20  # bytes of pages written ahead in one transaction: others wait for it

Page = tuple[int, tuple[Any, ...]]
"""(level, entries): level 0 is a leaf; see `pachd.store.tree` for the entries."""


class Cache:
    """What all transactions of a store share: pages read recently, those written while a collection runs, and those
    written ahead, which no root reaches yet."""

    def __init__(self) -> None:
        self.pages: dict[bytes, Page] = {}
        self.written: set[bytes] | None = None
        self.ahead: list[set[bytes]] = []
        self.totals: dict[tuple[bytes, str, str | None], Any] = {}  # of ranges of trees, see `pachd.store.tree`
        self.lock = threading.Lock()

    def watch(self) -> set[bytes]:
        """Begin to collect: the pages that stay whatever a snapshot says, growing until `written` is None again."""
        with self.lock:
            written: set[bytes] = set().union(*self.ahead)
            self.written = written
        return written

    def add(self, page_id: bytes, page: Page) -> None:
        with self.lock:
            if len(self.pages) >= _CACHED_PAGES:
                for old in list(self.pages)[: _CACHED_PAGES // 4]:
                    del self.pages[old]
            self.pages[page_id] = page


def shared(store: Store) -> Cache:
    """The store's cache of pages; made at first use."""
    cache = store.shared.get("pages")
    if cache is None:
        cache = store.shared.setdefault("pages", Cache())
    return cache  # type: ignore[no-any-return]


class Pages:
    """The pages that one transaction sees: those in the database, and new ones that are not there yet."""

    def __init__(self, txn: Snapshot, base: "Pages | None" = None) -> None:
        """`base`: start with another object's new pages, without changing that object."""
        self.new: dict[bytes, Page] = dict(base.new) if base else {}
        self._db: sqlite3.Connection = txn.db
        self._cache = shared(txn.store)
        self.totals = self._cache.totals

    def get(self, page_id: bytes) -> Page:
        """The page of this ID. Raises StoreError if the database does not have it (a damaged store)."""
        page = self._cache.pages.get(page_id) or self.new.get(page_id)
        if page is None:
            data = self._load(page_id)
            if data is None:
                raise StoreError(f"page {page_id.hex()} is missing from the store; run `pachd fsck` on its folder")
            level, entries = msgpack.unpackb(data, use_list=False)
            page = (level, entries)
            self._cache.add(page_id, page)
        return page

    def _load(self, page_id: bytes) -> bytes | None:
        row = self._db.execute("SELECT data FROM page WHERE id=?", (page_id,)).fetchone()
        return row[0] if row is not None else None

    def put(self, level: int, entries: tuple[Any, ...]) -> bytes:
        """Add a page; returns its ID."""
        page_id = page_hash(pack(level, entries))
        self.new[page_id] = (level, entries)
        return page_id

    def flush(self, root: bytes | None) -> None:
        """Write the new pages that `root` reaches to the database, inside the caller's transaction; forget the
        others."""
        reached: dict[bytes, bytes] = {}
        todo = [root] if root is not None else []
        while todo:
            page_id = todo.pop()
            page = self.new.get(page_id)
            if page is None or page_id in reached:
                continue
            level, entries = page
            reached[page_id] = pack(level, entries)
            if level:
                todo += [entry[2] for entry in entries]
        self._insert(sorted(reached.items()))
        self.new.clear()

    def _insert(self, pages: Sequence[tuple[bytes, bytes]]) -> None:
        written = self._cache.written
        if written is not None:  # a collection may be about to delete the same pages
            written.update(page_id for page_id, _data in pages)
        self._db.executemany("INSERT OR IGNORE INTO page VALUES (?,?)", pages)


class PagesAhead(Pages):
    """Pages of a tree that a reader makes for a transaction to come: `flush` writes them in short transactions of its
    own. Nothing collects them before `close`; by then a root reaches them, or nobody ever needs them."""

    def __init__(self, txn: Snapshot) -> None:
        super().__init__(txn)
        self.store = txn.store
        self._written: set[bytes] = set()
        with self._cache.lock:
            self._cache.ahead.append(self._written)

    def close(self) -> None:
        """Let the pages be collected that no root reaches. Twice is no error."""
        with self._cache.lock:
            self._cache.ahead = [known for known in self._cache.ahead if known is not self._written]

    def _load(self, page_id: bytes) -> bytes | None:
        data = super()._load(page_id)
        if data is None and page_id in self._written:  # written after the reader's snapshot was taken
            with self.store.read() as snapshot:
                data = Pages(snapshot)._load(page_id)
        return data

    def _insert(self, pages: Sequence[tuple[bytes, bytes]]) -> None:
        batch: list[tuple[bytes, bytes]] = []
        size = 0
        for page in pages:
            batch.append(page)
            size += len(page[1])
            if size >= _BATCH:
                self._insert_batch(batch)
                batch, size = [], 0
        if batch:
            self._insert_batch(batch)

    def _insert_batch(self, pages: Sequence[tuple[bytes, bytes]]) -> None:
        with self._cache.lock:  # before they are written: a collection that begins now knows of them
            self._written.update(page_id for page_id, _data in pages)
            if self._cache.written is not None:
                self._cache.written.update(page_id for page_id, _data in pages)
        with self.store.write(quiet=True) as txn:
            txn.db.executemany("INSERT OR IGNORE INTO page VALUES (?,?)", pages)


def pack(level: int, entries: tuple[Any, ...]) -> bytes:
    """The bytes a page is stored as."""
    data: bytes = msgpack.packb((level, entries))
    return data


def page_hash(data: bytes) -> bytes:
    """The ID of a page with these bytes."""
    return hashlib.blake2b(data, digest_size=20).digest()
