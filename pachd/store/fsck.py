"""Checking that the store holds what its trees say: pages, their sums, contents and, if asked, every byte."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from pachd.store import contents, sparse
from pachd.store.pages import page_hash
from pachd.store.store import Snapshot, StoreError
from pachd.store.tree import FANOUT, summary


class Fsck:
    """One check of one snapshot. Trees share pages: each page and each reference is looked at once."""

    def __init__(self, txn: Snapshot, rehash: bool = False) -> None:
        """rehash: also read every file and compare its hash."""
        self._txn = txn
        self._rehash = rehash
        self._sizes: dict[int, int] = dict(
            txn.db.execute("SELECT id, size FROM container WHERE data IS NULL OR length(data)=size").fetchall()
        )
        for container, size, data in txn.db.execute("SELECT id, size, data FROM container WHERE length(data)<size"):
            try:
                sparse.whole(data, size)
            except ValueError:
                continue
            self._sizes[container] = size
        self.files = 0  # how much was read again
        self.bytes = 0
        self._done: dict[bytes, Any] = {}
        self._hashed: set[tuple[int, ...]] = set()

    def packs(self) -> Iterator[str]:
        """Packs that are missing or shorter than they should be."""
        packs = contents.shared(self._txn.store).packs
        for container, size in self._txn.db.execute("SELECT id, size FROM container WHERE data IS NULL"):
            try:
                found = packs.size(container, size)
            except StoreError as err:
                yield f"pack {container:x} cannot be checked: {err}"
                continue
            if found is None:
                yield f"pack {container:x} is missing: {packs.where(container)}"
            elif found < size:
                yield f"pack {container:x} has {found} bytes instead of {size}"

    def tree(self, root: bytes | None) -> Iterator[str]:
        """What is wrong with a tree, a sentence each; nothing if it is sound."""
        if root is not None:
            yield from self._page(root)

    def _page(self, page_id: bytes) -> Iterator[str]:
        if page_id in self._done:
            return
        self._done[page_id] = None
        row = self._txn.db.execute("SELECT data FROM page WHERE id=?", (page_id,)).fetchone()
        if row is None:
            yield f"page {page_id.hex()} is missing"
            return
        entries: list[Any] = []
        yield from self.page(page_id, row[0], entries)
        if not entries:
            return
        ((level, found),) = entries
        if level:
            for child in found:
                yield from self._page(child[2])
                sums = self._done.get(child[2])
                if sums is not None and sums != child:
                    yield f"page {page_id.hex()} has a wrong sum for its page {child[2].hex()}"
        self._done[page_id] = summary(page_id, level, found)

    def page(self, page_id: bytes, data: bytes, out: list[Any] | None = None) -> Iterator[str]:
        """What is wrong with a page and the files in it, not with the pages below it; a page that can be read is
        added to `out` as (level, entries)."""
        name = f"page {page_id.hex()}"
        if page_hash(data) != page_id:
            yield f"{name} is damaged: its bytes have another hash"
            return
        level, entries = msgpack.unpackb(data, use_list=False)
        keys = [entry[0] for entry in entries]
        if not 0 < len(entries) <= FANOUT or keys != sorted(set(keys)):
            yield f"{name} is malformed: {len(entries)} entries, or out of order"
            return
        if level == 0:
            for entry in entries:
                yield from self.file(entry)
        if out is not None:
            out.append((level, entries))

    def file(self, entry: Any) -> Iterator[str]:
        """What is wrong with a file (an entry of a leaf)."""
        key, size, digest, refs, blocks = entry
        path = key.replace("\0", " of datum ")
        if sum(refs[2::3]) != size:
            yield f"file {path} has {sum(refs[2::3])} bytes instead of {size}"
        for container, offset, length in _threes(refs):
            if container not in self._sizes:
                yield f"file {path} refers to container {container}, which is missing or damaged"
                return
            if offset + length > self._sizes[container]:
                yield f"file {path} refers to bytes behind the end of container {container}"
                return
        if not self._rehash or (refs and refs in self._hashed):
            return
        self._hashed.add(refs)
        self.files += 1
        self.bytes += size
        try:
            hasher = contents.BlockHasher()
            for piece in contents.read(self._txn, refs):
                hasher.update(piece)
        except (StoreError, OSError) as err:
            yield f"file {path} cannot be read: {err}"
            return
        if hasher.finish() != (digest, blocks):
            yield f"file {path} is damaged: its bytes have another hash"


def _threes(refs: tuple[int, ...]) -> Iterable[tuple[int, int, int]]:
    return zip(refs[::3], refs[1::3], refs[2::3], strict=True)


def database(txn: Snapshot) -> Iterator[str]:
    """What SQLite finds wrong with the database itself."""
    try:
        for (line,) in txn.db.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"database: {line}"
        for _row in txn.db.execute("SELECT sql FROM sqlite_master"):
            pass  # reading the definitions as text is the check
    except sqlite3.DatabaseError as err:
        yield f"database: {err}"
