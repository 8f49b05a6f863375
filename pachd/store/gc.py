"""Collecting pages and contents that nothing refers to any more.

Most of the work is done beside the writer: a snapshot is searched for what its roots reach. Then, in one short
transaction, what has become reachable since is added, and of the rows that were there at the snapshot the others are
deleted. Packs of collected containers stay on the disk until the next collection, or the next start, because a reader
of an old snapshot may still be in them.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from pachd.store import contents
from pachd.store.pages import Pages
from pachd.store.store import Snapshot, Store


class Collected(NamedTuple):
    """How much was collected; false if nothing."""

    pages: int
    containers: int
    bytes: int

    def __bool__(self) -> bool:
        return bool(self.pages or self.containers)


class Roots(NamedTuple):
    """What is in use: trees by their roots, and containers that no tree refers to yet."""

    trees: set[bytes]
    containers: set[int]


def collect(store: Store, roots: Callable[[Snapshot], Roots]) -> Collected:
    """Delete every page and container that no root reaches. `roots(txn)` says what is in use as that transaction sees
    it."""
    pages: set[bytes] = set()
    used: set[int] = set()
    with store.read() as snapshot:
        _mark(snapshot, roots(snapshot), pages, used)
        old_pages = [r[0] for r in snapshot.db.execute("SELECT id FROM page") if r[0] not in pages]
        old_containers = [r[0] for r in snapshot.db.execute("SELECT id FROM container") if r[0] not in used]
    state = contents.shared(store)
    with store.write() as txn:
        _mark(txn, roots(txn), pages, used)
        with state.lock:
            pinned = set(state.pins)
        dead_pages = [(page,) for page in old_pages if page not in pages]
        dead = [container for container in old_containers if container not in used and container not in pinned]
        freed = 0
        for container in dead:
            freed += txn.db.execute("SELECT size FROM container WHERE id=?", (container,)).fetchone()[0]
        txn.db.executemany("DELETE FROM page WHERE id=?", dead_pages)
        txn.db.executemany("DELETE FROM container WHERE id=?", [(container,) for container in dead])
        txn.after_commit(lambda: state.forget(dead))
    return Collected(len(dead_pages), len(dead), freed)


def _mark(txn: Snapshot, roots: Roots, pages: set[bytes], used: set[int]) -> None:
    """Add what the roots reach; what is in `pages` already has been searched."""
    used |= roots.containers
    source = Pages(txn)
    todo = [root for root in roots.trees if root not in pages]
    while todo:
        page_id = todo.pop()
        if page_id in pages:
            continue
        pages.add(page_id)
        level, entries = source.get(page_id)
        if level:
            todo += [child[2] for child in entries if child[2] not in pages]
        else:
            for entry in entries:
                used.update(entry[3][::3])


def containers_in(ops: Iterable[tuple[object, ...]]) -> set[int]:
    """The containers that packed operations (`pachd.pfs.changes`) refer to: the references are the fifth field of an
    addition."""
    found: set[int] = set()
    for op in ops:
        if op[0] == 0:
            refs = op[4]
            assert isinstance(refs, tuple)
            found.update(refs[::3])
    return found
