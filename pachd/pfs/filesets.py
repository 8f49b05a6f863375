"""The files of a commit while it is open, and what finishing it does.

A commit's tree is its parent's with the streams that were written into it applied. Until the commit finishes, the
streams are kept as rows of `change`; a reader applies them in memory.
"""

from typing import NamedTuple, Protocol

from pachd.errors import PachError
from pachd.pfs import changes, steps
from pachd.proto import pfs_pb2
from pachd.store.contents import ContentWriter
from pachd.store.pages import Page, Pages
from pachd.store.store import Snapshot, Txn
from pachd.store.tree import Tree


class CommitLike(Protocol):
    """What is needed to know of a commit: `pachd.pfs.refs.CommitRow` has it."""

    @property
    def pk(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def repo(self) -> object: ...
    @property
    def parent_pk(self) -> int | None: ...
    @property
    def state(self) -> int: ...
    @property
    def error(self) -> str: ...
    @property
    def root(self) -> bytes | None: ...
    @property
    def finishing(self) -> int | None: ...


class Finished(NamedTuple):
    """What `finish` gives: the root of the tree (None: no files), its bytes, and what is wrong with it ("":
    nothing)."""

    root: bytes | None
    size: int
    error: str


class _Open(NamedTuple):
    """The tree of an open commit as a reader last saw it."""

    base: bytes | None
    rows: int
    last: int
    root: bytes | None
    pages: dict[bytes, Page]


def add(txn: Txn, row: CommitLike, ops: list[bytes], size: int) -> None:
    """Append one stream to an open commit: its packed operations, and how many bytes it brought."""
    txn.db.executemany(
        "INSERT INTO change (commit_pk, bytes, ops) VALUES (?,?,?)",
        [(row.pk, 0 if i else size, data) for i, data in enumerate(ops)],
    )


def finish(txn: Txn, row: CommitLike) -> Finished:
    """Apply what was written into an open commit to the tree of its parent.

    Raises PachError if the parent is not finished. An invalid tree is no exception: the commit finishes with the
    error, its files stay readable, and its children do not build on it.
    """
    base = base_root(txn, row)
    rows = [r[0] for r in txn.db.execute("SELECT ops FROM change WHERE commit_pk=? ORDER BY pk", (row.pk,))]
    pages = Pages(txn)
    if not rows:
        return Finished(base, Tree(pages, base).total().size, "")
    writer = ContentWriter(txn.store)
    try:
        # pachd alone writes meta commits, each datum below directories of its own: nothing to find there
        check = getattr(row.repo, "type", "") != "meta"
        tree, error, touched = changes.apply_all(txn, Tree(pages, base), rows, writer, check)
        writer.flush(txn)
    except BaseException:
        writer.close()
        raise
    size = tree.total().size
    pages.flush(tree.root)
    if touched is not None:
        steps.note(txn, base, tree.root, touched)
    txn.db.execute("DELETE FROM change WHERE commit_pk=?", (row.pk,))
    return Finished(tree.root, size, error)


def clear(txn: Txn, row: CommitLike) -> None:
    """Forget everything that was written into an open commit, or drop what is left of a deleted one."""
    txn.db.execute("DELETE FROM change WHERE commit_pk=?", (row.pk,))


def size_upper_bound(txn: Snapshot, row: CommitLike) -> int:
    """The bytes of an open commit's parent plus all that was written into it."""
    try:
        base = Tree(Pages(txn), base_root(txn, row)).total().size
    except PachError:
        base = 0
    written: int = txn.db.execute("SELECT coalesce(sum(bytes), 0) FROM change WHERE commit_pk=?", (row.pk,)).fetchone()[
        0
    ]
    return base + written


def base_root(txn: Snapshot, row: CommitLike) -> bytes | None:
    """The tree that an open commit builds on: that of its nearest ancestor without an error.

    Raises PachError if that one is not finished.
    """
    parent = row.parent_pk
    while parent is not None:
        found = txn.db.execute("SELECT id, state, error, root, parent_pk FROM commits WHERE pk=?", (parent,)).fetchone()
        if found is None:
            return None
        if not found["error"]:
            if found["state"] != pfs_pb2.FINISHED:
                repo = row.repo
                raise PachError(f"base commit {repo}@{found['id']} for commit {repo}@{row.id} unfinished")
            if found["root"] is None and _is_forgotten(txn, parent):
                raise PachError("the commit is forgotten")
            root: bytes | None = found["root"]
            return root
        parent = found["parent_pk"]
    return None


def _is_forgotten(txn: Snapshot, pk: int) -> bool:
    return txn.db.execute("SELECT 1 FROM forgotten WHERE commit_pk=?", (pk,)).fetchone() is not None


def tree_of(txn: Snapshot, row: CommitLike) -> Tree:
    """The tree of a commit, open or finished. Raises PachError if it is open and its parent is not finished."""
    if row.state == pfs_pb2.FINISHED:
        if row.root is None and _is_forgotten(txn, row.pk):
            raise PachError("the commit is forgotten")
        return Tree(Pages(txn), row.root)
    base = base_root(txn, row)
    known: dict[int, _Open] = txn.store.shared.setdefault("open commits", {})
    rows, last = txn.db.execute("SELECT count(*), max(pk) FROM change WHERE commit_pk=?", (row.pk,)).fetchone()
    if not rows:
        return Tree(Pages(txn), base)
    pages, start, root = Pages(txn), 0, base
    seen = known.get(row.pk)
    if seen is not None and seen.base == base and seen.last <= last:
        still = txn.db.execute(
            "SELECT count(*) FROM change WHERE commit_pk=? AND pk<=?", (row.pk, seen.last)
        ).fetchone()[0]
        if still == seen.rows:
            pages.new.update(seen.pages)
            start, root = seen.last, seen.root
    tree = Tree(pages, root)
    if start < last:
        todo = changes.Changes()
        found = txn.db.execute("SELECT ops FROM change WHERE commit_pk=? AND pk>? ORDER BY pk", (row.pk, start))
        for (ops,) in found:
            todo.add(changes.unpack(ops))
        tree = todo.apply(tree, txn, None)[0]
        if not txn.writable:  # what a transaction sees may be rolled back
            while len(known) >= 16:
                known.pop(next(iter(known)), None)
            known[row.pk] = _Open(base, rows, last, tree.root, dict(pages.new))
    return tree
