"""Contents of files: where their bytes are, and their hash.

Bytes live in containers. A small container is a row of the database; what a writer cannot keep in memory goes to a
pack, a file of its own that is synced before the transaction that names it. A file is a list of references
(container, offset, size) laid end to end, flat in one tuple. Containers never change; those that no tree and no open
commit refers to are collected (`gc`).

The hash of a file is that of Pachyderm: BLAKE2b-256 over the BLAKE2b-256 hashes of its blocks. Files below 1 MB have
one block there; here blocks are fixed at 8 MiB, so the same bytes always have the same hash, however they were
written.
"""

import hashlib
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pachd.store import sparse
from pachd.store.packs import PackWriter
from pachd.store.places import OBJECT_SCHEMA, Packs
from pachd.store.store import Snapshot, Store, StoreError, Txn

CONTENT_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS container (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, data BLOB);
"""
    + OBJECT_SCHEMA
)

BLOCK = 8 << 20
ROW_LIMIT = 64 << 10  # a container in the database is closed when it is at least this big
MEMORY_LIMIT = 4 << 20  # what one writer keeps in memory before it starts a pack
_CACHED_BYTES = 16 << 20
_READ = 1 << 20

EMPTY_HASH = hashlib.blake2b(digest_size=32).digest()


class Content(NamedTuple):
    """The bytes of a file: how many, their hash, where they are, and the hashes of the blocks if there is more than
    one."""

    size: int
    hash: bytes
    refs: tuple[int, ...]
    blocks: bytes


NO_CONTENT = Content(0, EMPTY_HASH, (), b"")


def content_hash(data: bytes) -> bytes:
    """The hash of a file with these bytes."""
    if len(data) <= BLOCK:
        return file_hash(hashlib.blake2b(data, digest_size=32).digest() if data else b"")
    hasher = BlockHasher()
    hasher.update(data)
    return hasher.finish()[0]


def file_hash(blocks: bytes) -> bytes:
    """The hash of a file whose blocks have these hashes (32 bytes each, end to end)."""
    return hashlib.blake2b(blocks, digest_size=32).digest()


class BlockHasher:
    """Hashes a stream of bytes block by block. `blocks`: the hashes of whole blocks that come before it."""

    def __init__(self, blocks: bytes = b"") -> None:
        self._blocks = bytearray(blocks)
        self._left = BLOCK
        self._now = hashlib.blake2b(digest_size=32)

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes of the stream."""
        view = memoryview(data)
        while view:
            part = view[: self._left]
            self._now.update(part)
            self._left -= len(part)
            if not self._left:
                self._blocks += self._now.digest()
                self._now = hashlib.blake2b(digest_size=32)
                self._left = BLOCK
            view = view[len(part) :]

    def finish(self) -> tuple[bytes, bytes]:
        """(the file's hash, its block hashes or b"" if it has only one block)."""
        blocks = bytes(self._blocks)
        if self._left != BLOCK:
            blocks += self._now.digest()
        return file_hash(blocks), blocks if len(blocks) > 32 else b""


class Shared:
    """What all transactions of a store share: the next container ID, recently read rows, packs, pins."""

    def __init__(self, store: Store) -> None:
        self.lock = threading.Lock()
        self.collecting = threading.Lock()  # held by the one collection that runs
        self.rows: dict[int, bytes] = {}
        self.row_bytes = 0
        self.pins: Counter[int] = Counter()
        self.recent: set[int] | None = None  # while a collection runs: everything pinned since it began
        self.packs = Packs(store, os.path.join(store.path, "packs"))
        with store.read() as snapshot:
            known = {r[0] for r in snapshot.db.execute("SELECT id FROM container WHERE data IS NULL")}
            last: int = snapshot.db.execute("SELECT coalesce(max(id), 0) FROM container").fetchone()[0]
        self.next_id = last + 1
        if not store.readonly:
            self.next_id = max(last, self.packs.clean(known)) + 1

    def new_id(self) -> int:
        with self.lock:
            self.next_id += 1
            return self.next_id - 1

    def pin(self, containers: list[int]) -> None:
        with self.lock:
            self.pins.update(containers)
            if self.recent is not None:
                self.recent.update(containers)

    def unpin(self, containers: list[int]) -> None:
        if not containers:
            return
        with self.lock:
            pins = self.pins
            for container in containers:
                pins[container] -= 1
                if pins[container] <= 0:
                    del pins[container]

    def remember(self, container: int, data: bytes) -> None:
        with self.lock:
            if container in self.rows:
                return
            self.rows[container] = data
            self.row_bytes += len(data)
            while self.row_bytes > _CACHED_BYTES:
                self.row_bytes -= len(self.rows.pop(next(iter(self.rows))))

    def forget(self, containers: list[int]) -> None:
        """Drop what is known of collected containers, and their packs."""
        with self.lock:
            for container in containers:
                self.row_bytes -= len(self.rows.pop(container, b""))
        self.packs.remove(containers)

    def close(self) -> None:
        self.packs.close()


_making = threading.Lock()


def shared(store: Store) -> Shared:
    """The store's shared state of contents; made at first use."""
    found = store.shared.get("contents")
    if found is None:
        with _making:
            found = store.shared.get("contents")
            if found is None:
                found = store.shared["contents"] = Shared(store)
    return found


def _row(txn: Snapshot, container: int) -> bytes | None:
    """The bytes of a container in the database; None if it is a pack."""
    state = shared(txn.store)
    data = state.rows.get(container)
    if data is None:
        row = txn.db.execute("SELECT data, size FROM container WHERE id=?", (container,)).fetchone()
        if row is None:
            raise StoreError(f"container {container} is missing from the store; run `pachd fsck` on its folder")
        data = row[0]
        if data is not None and len(data) != row[1]:
            try:
                data = sparse.whole(data, row[1])
            except ValueError as err:
                raise StoreError(f"container {container} is damaged: {err}; run `pachd fsck` on its folder") from err
        if data is not None and not txn.writable:  # what a transaction wrote may never be committed
            state.remember(container, data)
    return data


def read(txn: Snapshot, refs: tuple[int, ...], offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from `offset`, at most `size` of them, in pieces of at most 1 MiB. Past the end: nothing."""
    left = -1 if size is None else size
    for i in range(0, len(refs), 3):
        container, start, length = refs[i : i + 3]
        if offset >= length:
            offset -= length
            continue
        start, length, offset = start + offset, length - offset, 0
        if left >= 0:
            length = min(length, left)
            left -= length
        if not length:
            return
        data = _row(txn, container)
        if data is not None:
            for at in range(start, start + length, _READ):
                yield data[at : min(at + _READ, start + length)]
            continue
        yield from shared(txn.store).packs.read(container, start, length)


def read_all(txn: Snapshot, refs: tuple[int, ...]) -> bytes:
    """All bytes of a (small) file."""
    if len(refs) == 3:
        data = _row(txn, refs[0])
        if data is not None:
            return data[refs[1] : refs[1] + refs[2]]
    return b"".join(read(txn, refs))


class ContentWriter:
    """Takes bytes outside of any transaction; `flush` makes them part of one.

    Until then its containers are pinned, so that nothing collects them. `close` it in any case: what was not flushed
    is removed.
    """

    def __init__(self, store: Store) -> None:
        self._shared = shared(store)
        self._open = bytearray()
        self._open_id = 0
        self._rows: list[tuple[int, bytes]] = []
        self._in_memory = 0
        self._pack: PackWriter | None = None
        self._pinned: list[int] = []
        self._txn: Txn | None = None
        self._stored = False

    def _new_id(self) -> int:
        container = self._shared.new_id()
        self._shared.pin([container])
        self._pinned.append(container)
        return container

    def add(self, data: bytes) -> tuple[int, ...]:
        """Keep these bytes; returns the references to them. Raises OSError when the disk does not take them."""
        if not data:
            return ()
        if self._pack or self._in_memory + len(data) > MEMORY_LIMIT:
            return self._add_to_pack(data)
        if len(self._open) + len(data) > ROW_LIMIT and self._open:
            self._close_row()
        if not self._open:
            self._open_id = self._new_id()
        at = len(self._open)
        self._open += data
        self._in_memory += len(data)
        return self._open_id, at, len(data)

    def _close_row(self) -> None:
        if self._open:
            self._rows.append((self._open_id, bytes(self._open)))
            self._open = bytearray()

    def _add_to_pack(self, data: bytes) -> tuple[int, ...]:
        if self._pack is None:
            self._pack = self._shared.packs.create(self._new_id())
        at = self._pack.size
        self._pack.write(data)
        return self._pack.container, at, len(data)

    def seal(self) -> None:
        """Make the pack durable. Call it before the transaction, whose time it would take."""
        self._close_row()
        if self._pack:
            self._pack.seal()

    def store(self, txn: Txn) -> None:
        """Make the bytes durable ahead of the transaction for which `flush` will be called; the writer takes no more.

        They stay pinned. If nothing comes to refer to them, they are collected after `close`.
        """
        self._insert(txn)
        txn.after_commit(self._is_stored)

    def flush(self, txn: Txn) -> None:
        """Make the bytes part of the transaction; the writer takes no more. They are kept if it commits."""
        if self._stored:
            txn.after_commit(self.close)
            return
        self._insert(txn)
        txn.after_commit(self._committed)

    def _insert(self, txn: Txn) -> None:
        self.seal()
        txn.db.executemany(
            "INSERT INTO container VALUES (?,?,?)", [(container, len(data), data) for container, data in self._rows]
        )
        if self._pack:
            txn.db.execute("INSERT INTO container VALUES (?,?,NULL)", (self._pack.container, self._pack.size))
            self._pack.record(txn)
        self._txn = txn

    def _is_stored(self) -> None:
        self._stored, self._pack = True, None
        self._rows.clear()

    def _committed(self) -> None:
        self._pack = None
        self.close()

    def close(self) -> None:
        """Let go of everything; a pack that did not become part of a committed transaction is removed. Twice is no
        error."""
        # After a failed COMMIT the database may still have it: then the next start decides, when it looks for packs
        # without rows.
        if self._pack and (self._txn is None or not self._txn.committing):
            self._pack.abort()
        self._pack = None
        self._rows.clear()
        self._open = bytearray()
        self._shared.unpin(self._pinned)
        self._pinned = []


def join(txn: Snapshot, writer: ContentWriter | None, parts: list[Content]) -> Content:
    """One file of several laid end to end, with the hash that its bytes have.

    Small pieces are written anew, as one; without a `writer` they stay where they are.
    """
    parts = [part for part in parts if part.size]
    if not parts:
        return NO_CONTENT
    if len(parts) == 1:
        return parts[0]
    size = sum(part.size for part in parts)
    if size <= ROW_LIMIT:
        data = b"".join(read_all(txn, part.refs) for part in parts)
        where = writer.add(data) if writer else tuple(ref for part in parts for ref in part.refs)
        return Content(size, content_hash(data), where, b"")
    first = parts[0]
    whole = first.size // BLOCK  # blocks of the first file that stay as they are
    hasher = BlockHasher(first.blocks[: whole * 32] if first.blocks else _only_block(txn, first, whole))
    refs = tuple(ref for part in parts for ref in part.refs)
    for piece in read(txn, refs, whole * BLOCK):
        hasher.update(piece)
    digest, blocks = hasher.finish()
    return Content(size, digest, _compact(txn, writer, refs) if writer else refs, blocks)


def _only_block(txn: Snapshot, content: Content, whole: int) -> bytes:
    """The hash of the block of a file that has exactly one, if that is a whole one."""
    if not whole:
        return b""
    hasher = hashlib.blake2b(digest_size=32)
    for piece in read(txn, content.refs):
        hasher.update(piece)
    return hasher.digest()


def _compact(txn: Snapshot, writer: ContentWriter, refs: tuple[int, ...]) -> tuple[int, ...]:
    """Write runs of many small references anew: a file appended to a thousand times should not have a thousand
    pieces."""
    if len(refs) <= 3 * 32:
        return refs
    out: list[int] = []
    run: list[int] = []
    for i in range(0, len(refs) + 3, 3):
        ref = refs[i : i + 3]
        if ref and ref[2] < ROW_LIMIT:
            run += ref
            if sum(run[2::3]) < BLOCK // 8:
                continue
        if run:
            out += writer.add(read_all(txn, tuple(run))) if len(run) > 3 else run
            run = []
        if ref and ref[2] >= ROW_LIMIT:
            out += ref
    return tuple(out)


def containers_of(refs: tuple[int, ...]) -> tuple[int, ...]:
    """The containers that references point into."""
    return refs[::3]


def size_on_disk(db: sqlite3.Connection) -> int:
    """Bytes of all containers."""
    found: int = db.execute("SELECT coalesce(sum(size), 0) FROM container").fetchone()[0]
    return found
