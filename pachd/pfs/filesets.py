"""The files of a commit while it is open, and what finishing it does.

A commit's tree is its parent's with the streams that were written into it applied. Until the commit finishes, the
streams are kept as rows of `change`; a reader applies them in memory.

Finishing a commit of many changes takes seconds, in which nobody else could write. So its tree may be made ahead, from
a snapshot (`Ahead`); the transaction takes that tree if it still fits: if the commit builds on the
same tree, and what was written into it is the same, or more. A tree made ahead is reached by no root: whenever the
process dies, the commit is what it was before.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pachd.errors import NotYet, PachError
from pachd.pfs import changes, steps
from pachd.proto import pfs_pb2
from pachd.store.contents import ContentWriter
from pachd.store.pages import Page, Pages, PagesAhead
from pachd.store.store import Snapshot, Store, Txn
from pachd.store.tree import Tree

_RETRY = "trees may be made ahead"


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


class Closing(Protocol):
    """What has a `close`."""

    def close(self) -> None: ...


class _Nothing:
    def close(self) -> None:
        pass


NOTHING: Closing = _Nothing()


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


class Unfinished(PachError):
    """The commit that another one builds on is not finished."""


class Large(Exception):
    """Raised where a transaction would finish a commit of many changes, if it may be tried again (see `may_retry`).

    make: makes the tree ahead, outside of any transaction. It returns what is to be closed when the transaction has
    been tried again. goes_on: whether to do so even if nobody waits for it any more.
    """

    def __init__(self, make: Callable[[], Closing], goes_on: bool) -> None:
        super().__init__("the tree should be made ahead")
        self.make = make
        self.goes_on = goes_on


def may_retry(txn: Txn) -> None:
    """Have `finish` raise Large in this transaction if it would take long; its caller then makes the tree ahead."""
    txn.state[_RETRY] = True


def can_retry(txn: Txn) -> bool:
    """Whether Large may be raised."""
    return _RETRY in txn.state


class Ahead:
    """A tree made ahead; `close` it when the transaction that was to take it is over.

    base: the tree it was made of. rows, last: how many rows of changes of the commit are in it, up to which number.
    """

    def __init__(self, pages: PagesAhead, base: bytes | None, rows: int = 0, last: int = 0) -> None:
        self.base, self.rows, self.last = base, rows, last
        self.root = base
        self.error = ""
        self._pages = pages
        self._writer = ContentWriter(pages.store)
        self._known = _known(pages.store)
        self._commit: int | None = None

    def make(self, txn: Snapshot, changed: Iterable[bytes], check: bool) -> None:
        """Make the tree: apply rows of operations to `base`."""
        tree = Tree(self._pages, self.base)
        tree, self.error, _touched, _idle = changes.apply_all(txn, tree, changed, self._writer, check)
        self._pages.flush(tree.root)
        self.root = tree.root
        self._writer.seal()

    def offer(self, commit: int) -> None:
        """Let the transaction that finishes the commit of this number take the tree, until `close`."""
        self._commit = commit
        self._known[commit] = self

    def flush(self, txn: Txn) -> None:
        """Make the contents that were written anew part of the transaction."""
        self._writer.flush(txn)

    def close(self) -> None:
        """Let go of what no transaction has taken. Twice is no error."""
        if self._commit is not None and self._known.get(self._commit) is self:
            self._known.pop(self._commit, None)
        self._writer.close()
        self._pages.close()


def add(txn: Txn, row: CommitLike, ops: Iterable[bytes], size: int) -> None:
    """Append one stream to an open commit: its packed operations, and how many bytes it brought."""
    txn.db.executemany(
        "INSERT INTO change (commit_pk, bytes, ops) VALUES (?,?,?)",
        ((row.pk, 0 if i else size, data) for i, data in enumerate(ops)),
    )


def _checked(row: CommitLike) -> bool:
    # pachd alone writes meta commits, each datum below directories of its own: nothing to find there
    return getattr(row.repo, "type", "") != "meta"


def _known(store: Store) -> dict[int, Ahead]:
    """The trees made ahead of commits that are there already, by the commits' numbers."""
    known: dict[int, Ahead] = store.shared.setdefault("ahead", {})
    return known


def ahead_of_commit(store: Store, row: CommitLike) -> Closing:
    """If an open commit has many changes, make its tree now, outside of any transaction; one that finishes the commit
    need not do it, until what this returns is closed."""
    with store.read() as snapshot:
        size, rows, last = snapshot.db.execute(_CHANGED, (row.pk, 0)).fetchone()
        if size <= changes.LARGE:
            return NOTHING
        try:
            base = base_root(snapshot, row)
        except PachError:  # it cannot finish yet
            return NOTHING
        made = Ahead(PagesAhead(snapshot), base, rows, last)
        try:
            found = snapshot.db.execute(_ROWS, (row.pk, 0, last))
            made.make(snapshot, (each[0] for each in found), _checked(row))
        except BaseException:
            made.close()
            raise
    store.checkpoint()
    made.offer(row.pk)
    return made


_CHANGED = "SELECT coalesce(sum(length(ops)), 0), count(*), max(pk) FROM change WHERE commit_pk=? AND pk>?"
_ROWS = "SELECT ops FROM change WHERE commit_pk=? AND pk>? AND pk<=? ORDER BY pk"


def _fits(txn: Txn, row: CommitLike, made: Ahead, base: bytes | None) -> bool:
    """Whether a tree made ahead is that of the commit, but for what was written since."""
    if made.base != base:
        return False
    before, all = txn.db.execute(
        "SELECT coalesce(sum(pk<=?), 0), count(*) FROM change WHERE commit_pk=?", (made.last, row.pk)
    ).fetchone()
    # what made the tree invalid may be deleted by what was written since
    return bool(before == made.rows and (all == before or not made.error))


def finish(txn: Txn, row: CommitLike, made: Ahead | None = None) -> Finished:
    """Apply what was written into an open commit to the tree of its parent.

    made: a tree that was made ahead, if there is one.
    Raises PachError if the parent is not finished, Large as told there. An invalid tree is no exception: the commit
    finishes with the error, its files stay readable, and its children do not build on it.
    """
    base = base_root(txn, row)
    made = made or _known(txn.store).get(row.pk)
    if made is not None and not _fits(txn, row, made, base):
        made = None
    root, error, start = (made.root, made.error, made.last) if made else (base, "", 0)
    size, rows, last = txn.db.execute(_CHANGED, (row.pk, start)).fetchone()
    if size > changes.LARGE and can_retry(txn):
        raise Large(lambda: ahead_of_commit(txn.store, row), goes_on=True)
    pages = Pages(txn)
    if made is not None:
        made.flush(txn)
    tree = Tree(pages, root)
    if rows:
        writer = ContentWriter(txn.store)
        try:
            found = txn.db.execute(_ROWS, (row.pk, start, last))
            tree, error, touched, idle = changes.apply_all(txn, tree, (r[0] for r in found), writer, _checked(row))
            writer.flush(txn)
        except BaseException:
            writer.close()
            raise
        pages.flush(tree.root)
        if touched is not None and made is None:
            steps.note(txn, base, tree.root, touched)
        if idle:
            steps.note_idle(txn, row.pk, idle)
    if rows or made is not None:
        txn.db.execute("DELETE FROM change WHERE commit_pk=?", (row.pk,))
    return Finished(tree.root, tree.total().size, error)


def clear(txn: Txn, row: CommitLike) -> None:
    """Forget everything that was written into an open commit, or drop what is left of a deleted one."""
    txn.db.execute("DELETE FROM change WHERE commit_pk=?", (row.pk,))


def written(txn: Snapshot, row: CommitLike) -> list[str]:
    """The keys that may have been added to an open commit so far, sorted."""
    collected = changes.Changes()
    for (ops,) in txn.db.execute("SELECT ops FROM change WHERE commit_pk=? ORDER BY pk", (row.pk,)):
        collected.add(changes.unpack(ops))
    return collected.added


def size_upper_bound(txn: Snapshot, row: CommitLike) -> int:
    """The bytes of an open commit's parent plus all that was written into it; 0 while the parent is not finished."""
    try:
        base = Tree(Pages(txn), base_root(txn, row)).total().size
    except PachError:
        return 0
    written: int = txn.db.execute("SELECT coalesce(sum(bytes), 0) FROM change WHERE commit_pk=?", (row.pk,)).fetchone()[
        0
    ]
    return base + written


def base_root(txn: Snapshot, row: CommitLike) -> bytes | None:
    """The tree that an open commit builds on: that of its nearest ancestor without an error.

    Raises Unfinished if that one is not finished, PachError if it is forgotten.
    """
    return base_below(txn, row.parent_pk, row.repo, row.id)


def base_below(txn: Snapshot, parent: int | None, repo: object, id: str) -> bytes | None:
    """The tree that a commit with this parent builds on; errors as for `base_root`."""
    while parent is not None:
        found = txn.db.execute("SELECT id, state, error, root, parent_pk FROM commits WHERE pk=?", (parent,)).fetchone()
        if found is None:
            return None
        if not found["error"]:
            if found["state"] != pfs_pb2.FINISHED:
                raise Unfinished(f"base commit {repo}@{found['id']} for commit {repo}@{id} unfinished")
            if found["root"] is None and _is_forgotten(txn, parent):
                raise PachError("the commit is forgotten")
            root: bytes | None = found["root"]
            return root
        parent = found["parent_pk"]
    return None


def _is_forgotten(txn: Snapshot, pk: int) -> bool:
    return txn.db.execute("SELECT 1 FROM forgotten WHERE commit_pk=?", (pk,)).fetchone() is not None


def tree_of(txn: Snapshot, row: CommitLike) -> Tree:
    """The tree of a commit, open or finished.

    Raises PachError if it is open and its parent is not finished; NotYet if that is all that it waits for itself.
    """
    if row.state == pfs_pb2.FINISHED:
        if row.root is None and _is_forgotten(txn, row.pk):
            raise PachError("the commit is forgotten")
        return Tree(Pages(txn), row.root)
    try:
        base = base_root(txn, row)
    except Unfinished as e:
        if row.state == pfs_pb2.FINISHING:
            raise NotYet(str(e)) from None
        raise
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
