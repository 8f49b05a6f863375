"""Collecting pages and contents that nothing refers to any more, beside everything that goes on.

A snapshot is searched for what its roots reach; of the rows in it the others are deleted, in short transactions. What
is dead at the snapshot stays dead, but for three things, and each is kept out:

- a stream under way has *pinned* containers: whatever was pinned at any time since the collection began stays;
- a transaction may write a page anew that was dead: pages written since the collection began stay, and those written
  ahead of a transaction that is still to come;
- a reader that began before the snapshot may still see, and copy, what is dead in it: nothing is deleted before the
  last of those readers has ended. For that reason no reader ever finds a pack gone.

Packs that are partly dead give their dead parts back to the file system (`pachd.store.packs`), rows of which most is
dead are written anew (`pachd.store.sparse`).
"""

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import msgpack  # type: ignore[import-untyped]

from pachd.store import contents, pages, sparse, system
from pachd.store.packs import Part, merged
from pachd.store.store import Snapshot, Store, StoreError, Txn

_SHORT, _LONG = 0.004, 0.012  # seconds a transaction may take: below, the next one does more; above, less
_FIRST_BATCH, _LARGEST_BATCH = 32, 2000  # rows
_BATCH_BYTES = 1 << 20
_POLL = 0.05  # seconds
_LOW = 64 << 20  # bytes free on the disk
_THIN = 3  # a row is thin if less than this part of it is alive
_WORTH = 1 << 20  # bytes that writing thin rows anew must give back

K = TypeVar("K", int, bytes)


class Collected(NamedTuple):
    """How much was collected; false if nothing. `bytes`: of whole containers; `punched`: given back inside packs."""

    pages: int
    containers: int
    bytes: int
    punched: int = 0

    def __bool__(self) -> bool:
        return bool(self.pages or self.containers or self.punched)


class Roots(NamedTuple):
    """What is in use: trees by their roots, and the references of contents that no tree has yet."""

    trees: set[bytes]
    refs: Iterable[tuple[int, ...]]


class Stopped(Exception):
    """The collection was told to stop; what it has done so far is whole."""


class Pace:
    """How a collection shares the machine.

    :param share: the part of the time that it may work, above 0 and at most 1.
    :param stop: when set, the collection ends with Stopped.
    :param patience: seconds to wait for readers that began before it.
    """

    def __init__(self, share: float = 1.0, stop: threading.Event | None = None, patience: float = 600.0) -> None:
        self.patience = patience
        self._share = share
        self._stop = stop or threading.Event()
        self._since = system.monotonic()

    def breathe(self) -> None:
        """Called after every small piece of work: sleeps, if it is time to. Raises Stopped."""
        worked = system.monotonic() - self._since
        if self._share < 1 and worked >= 0.002:
            self._stop.wait(worked * (1 / self._share - 1))
            self._since = system.monotonic()
        if self._stop.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Stopped."""
        if self._stop.wait(seconds):
            raise Stopped
        self._since = system.monotonic()


class _Marked:
    """What a snapshot reaches: pages, containers, and of packs which parts."""

    def __init__(self, parted: set[int]) -> None:
        """parted: the containers whose live parts are asked for; of the others only how much is alive."""
        self.pages: set[bytes] = set()
        self.containers: Counter[int] = Counter()  # bytes; too many where several trees have the same file
        self.parts: dict[int, list[Part]] = {}
        self._parted = parted

    def refs(self, refs: tuple[int, ...]) -> None:
        for i in range(0, len(refs), 3):
            self.containers[refs[i]] += refs[i + 2]
            if refs[i] in self._parted:
                parts = self.parts.setdefault(refs[i], [])
                if parts and parts[-1][1] == refs[i + 1]:
                    parts[-1] = (parts[-1][0], refs[i + 1] + refs[i + 2])
                else:
                    parts.append((refs[i + 1], refs[i + 1] + refs[i + 2]))


def collect(
    store: Store, roots: Callable[[Snapshot], Roots], prepare: Callable[[Store], object], pace: Pace | None = None
) -> Collected:
    """Delete every page and container that no root reaches.

    :param roots: says what is in use as a snapshot sees it.
    :param prepare: called first; must run at least one writing transaction (it drops what has expired).
    :returns: what was deleted; nothing if readers from before did not end within the pace's patience, or if another
        process views the folder (a backup, say).
    :raises Stopped: the pace's event was set.
    """
    pace = pace or Pace()
    state, cache = contents.shared(store), pages.shared(store)
    with state.collecting, _watching(state, cache) as (pinned, written):
        # A transaction that wrote pages before anybody watched has ended before this one begins.
        prepare(store)
        with store.read() as snapshot:
            sizes: dict[int, int] = dict(snapshot.db.execute("SELECT id, size FROM container").fetchall())
            packs = {r[0] for r in snapshot.db.execute("SELECT id FROM container WHERE data IS NULL")}
            marked = _Marked(packs)
            _mark(snapshot, roots(snapshot), marked, pace)
            thin = _thin(snapshot, roots, marked, pace)
            dead_pages = [r[0] for r in snapshot.db.execute("SELECT id FROM page") if r[0] not in marked.pages]
        dead = [container for container in sizes if container not in marked.containers]
        before = store.open_snapshots()
        waited = 0.0
        while (dead or dead_pages or marked.parts or thin) and before & store.open_snapshots():
            if waited >= pace.patience:
                return Collected(0, 0, 0)
            pace.wait(_POLL)
            waited += _POLL
        with store.collecting() as allowed:
            if not allowed:
                return Collected(0, 0, 0)
            punched = 0
            for pack, parts in marked.parts.items():
                if pack not in pinned:
                    punched += state.packs.keep_only(pack, sizes[pack], parts)
                    pace.breathe()
            if shutil.disk_usage(store.path).free < _LOW:  # deleting rows takes space before it gives some back
                for pack in packs.intersection(dead) - pinned:
                    state.packs.empty(pack, sizes[pack])
            done = _delete(store, "page", dead_pages, lambda page: 8192, written, pace)
            in_rows = {container: 0 if container in packs else sizes[container] for container in dead}
            gone = _delete(
                store, "container", dead, in_rows.__getitem__, pinned, pace, state.packs.forget_rows, state.forget
            )
            for container in thin.keys() - pinned:
                punched += _shrink(store, container, thin[container])
                pace.breathe()
            _remove_strays(store, state)
            state.packs.clean_objects()
    return Collected(len(done), len(gone), sum(sizes[container] for container in gone), punched)


def _thin(snapshot: Snapshot, roots: Callable[[Snapshot], Roots], marked: _Marked, pace: Pace) -> dict[int, list[Part]]:
    """The rows of which most is dead, with their live parts, if writing them anew is worth another search."""
    found: set[int] = set()
    gain = total = 0
    for container, length in snapshot.db.execute("SELECT id, length(data) FROM container WHERE data IS NOT NULL"):
        total += length
        live = marked.containers.get(container, 0)
        if live and live * _THIN < length:
            found.add(container)
            gain += length - live
    if gain < max(_WORTH, total // 20):
        return {}
    again = _Marked(found)
    _mark(snapshot, roots(snapshot), again, pace)
    return {container: merged(parts) for container, parts in again.parts.items()}


def _shrink(store: Store, container: int, parts: list[Part]) -> int:
    """Keep only these parts of a row; returns how many bytes that gave back."""
    with store.read() as snapshot:
        row = snapshot.db.execute("SELECT data, size FROM container WHERE id=?", (container,)).fetchone()
    data = sparse.shrunk(sparse.whole(row["data"], row["size"]), parts)
    if len(data) * 2 > len(row["data"]):
        return 0
    with store.write(quiet=True) as txn:
        txn.db.execute("UPDATE container SET data=? WHERE id=?", (data, container))
    return len(row["data"]) - len(data)


def _remove_strays(store: Store, state: "contents.Shared") -> None:
    """Remove packs that no transaction names and no stream writes: those of transactions that were undone.

    In this order: what is not pinned any more by then either has its row or never gets one.
    """
    present = state.packs.present()
    with state.lock:
        pinned = set(state.pins)
    with store.read() as snapshot:
        named = {row[0] for row in snapshot.db.execute("SELECT id FROM container WHERE data IS NULL")}
    state.packs.remove(present - pinned - named)


@contextmanager
def _watching(state: "contents.Shared", cache: "pages.Cache") -> Iterator[tuple[set[int], set[bytes]]]:
    """(the containers pinned, the pages written) from now on, growing while the collection runs."""
    with state.lock:
        pinned = state.recent = set(state.pins)
    written = cache.watch()
    try:
        yield pinned, written
    finally:
        state.recent = cache.written = None


def _mark(txn: Snapshot, roots: Roots, marked: _Marked, pace: Pace) -> None:
    for refs in roots.refs:
        marked.refs(refs)
        pace.breathe()
    todo = [root for root in roots.trees if root not in marked.pages]
    while todo:
        page_id = todo.pop()
        if page_id in marked.pages:
            continue
        marked.pages.add(page_id)
        # Not through the cache: it would lose what the readers need.
        row = txn.db.execute("SELECT data FROM page WHERE id=?", (page_id,)).fetchone()
        if row is None:
            raise StoreError(f"page {page_id.hex()} is missing from the store; run `pachd fsck` on its folder")
        level, entries = msgpack.unpackb(row[0], use_list=False)
        if level:
            todo += [child[2] for child in entries if child[2] not in marked.pages]
        else:
            for entry in entries:
                marked.refs(entry[3])
        pace.breathe()


def _delete(
    store: Store,
    table: str,
    keys: list[K],
    weight: Callable[[K], int],
    kept: set[K],
    pace: Pace,
    also: Callable[[Txn, list[K]], object] = lambda txn, keys: None,
    after: Callable[[list[K]], object] = lambda keys: None,
) -> list[K]:
    """Delete rows by their ID but for those in `kept`, a few at a time; returns which. `also` is called in each
    transaction, `after` behind it."""
    gone: list[K] = []
    at, count = 0, _FIRST_BATCH
    while at < len(keys):
        batch: list[K] = []
        weighed = 0
        while at < len(keys) and len(batch) < count and weighed < _BATCH_BYTES:
            batch.append(keys[at])
            weighed += weight(keys[at])
            at += 1
        with store.write(quiet=True) as txn:
            began = system.monotonic()
            batch = [key for key in batch if key not in kept]
            txn.db.executemany(f"DELETE FROM {table} WHERE id=?", [(key,) for key in batch])
            also(txn, batch)
        took = system.monotonic() - began
        if took < _SHORT:
            count = min(count * 2, _LARGEST_BATCH)
        elif took > _LONG:
            count = max(count // 2, 1)
        after(batch)
        gone += batch
        pace.breathe()
    return gone
