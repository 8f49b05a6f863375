"""Changing the files of a commit: one stream of modifications, all of it or nothing.

A `Modification` is filled outside of any transaction, so that a slow client keeps nobody from writing; `apply` or
`modify_file` then makes it part of one.
"""

import hashlib
from collections.abc import Iterable

from pachd.errors import NotFound, PachError
from pachd.pfs import changes, commits, filesets, paths, refs
from pachd.pfs.runs import Rows
from pachd.proto import pfs_pb2
from pachd.store.contents import BLOCK, NO_CONTENT, BlockHasher, ContentWriter, containers_of, shared
from pachd.store.pages import PagesAhead
from pachd.store.store import Snapshot, Store, Txn
from pachd.store.tree import Tree, path_of, tag_of
from pachd.types import Commit

DEFAULT_DATUM = "default"
_OPS_PER_ROW = 20_000


class Modification:
    """Additions, deletions and copies, in order. `close` it in any case, or use it as a context manager.

    Its methods raise PachError for an illegal path, with Pachyderm's words, and OSError when the disk takes no more.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = ContentWriter(store)
        self._ops: list[changes.Op] = []
        self._rows = Rows(store.path)
        self._ahead: filesets.Ahead | None = None
        self._pinned: list[int] = []
        self._file: _AppendedFile | None = None
        self.size = 0  # bytes added
        self.clears = False  # a directory is deleted: what is in it has to be known

    def __enter__(self) -> "Modification":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what was not applied. Twice is no error."""
        self._writer.close()
        self._rows.close()
        self._drop_ahead()
        shared(self._store).unpin(self._pinned)
        self._pinned = []

    def append(self, path: str, data: bytes, datum: str = "") -> None:
        """Append bytes (perhaps none) to a file, which begins to exist if it does not."""
        path = paths.file_path(path)
        if path == "/":  # accepted by Pachyderm, and never readable
            return
        key = path if not datum or datum == DEFAULT_DATUM else f"{path}\0{datum}"
        self.size += len(data)
        file = self._file
        if file is not None:
            if file.key == key:
                file.append(data, self._writer.add(data))
                return
            self._close_file()
        self._file = _AppendedFile(key, data, self._writer.add(data))

    def delete(self, path: str, datum: str = "") -> None:
        """Delete a file, or with a trailing slash everything below a directory; only what has this datum tag."""
        path = paths.deleted_path(path)
        tag = "" if datum == DEFAULT_DATUM else datum
        if path.endswith("/"):
            self.clears = True
            self._add((changes.DELETE_TREE, path, tag))
        else:
            self._add((changes.DELETE, f"{path}\0{tag}" if tag else path))

    def copy(
        self,
        src_row: filesets.CommitLike,
        src: str,
        dst: str,
        append: bool = False,
        datum: str = "",
        src_datum: str = "",
    ) -> None:
        """Copy a file, or all files below a directory, of the commit `src_row` as it is now; nothing there, nothing
        copied.

        append: add to what is at the destination instead of replacing it. datum: the tag of the copies. src_datum:
        copy only files with this tag.
        """
        with self._store.read() as snapshot:
            self.copy_from(snapshot, src_row, src, dst, append, datum, src_datum)

    def copy_from(
        self,
        txn: Snapshot,
        src_row: filesets.CommitLike,
        src: str,
        dst: str,
        append: bool = False,
        datum: str = "",
        src_datum: str = "",
    ) -> None:
        """`copy` as a given transaction sees the source."""
        self.copy_tree(filesets.tree_of(txn, src_row), src, dst, append, datum, src_datum)

    def copy_tree(
        self, tree: Tree, src: str, dst: str, append: bool = False, datum: str = "", src_datum: str = ""
    ) -> None:
        """`copy` from a tree, which the caller's transaction keeps."""
        source, target = paths.clean(src), paths.clean(dst)
        paths.validate_copied(target)
        tag = "" if datum == DEFAULT_DATUM else datum
        only = "" if src_datum == DEFAULT_DATUM else src_datum
        below = paths.as_dir(source)
        for low, high in ((source, source + "\1"), (below, paths.after(below))):
            for entry in tree.scan(low, high):
                path = path_of(entry[0])
                if (path != source and not path.startswith(below)) or (src_datum and tag_of(entry[0]) != only):
                    continue
                rest = path[len(below) :] if path != source else ""
                copied = f"{paths.as_dir(target)}{rest}" if rest else target
                if copied == "/":
                    continue
                key = f"{copied}\0{tag}" if tag else copied
                if not append:
                    self._add((changes.DELETE, key))
                self._add((changes.ADD, key, *entry[1:]))
                containers = containers_of(entry[3])
                shared(self._store).pin(list(containers))
                self._pinned += containers
                self.size += entry[1]

    def _add(self, op: changes.Op) -> None:
        self._close_file()
        self._ops.append(op)
        if len(self._ops) >= _OPS_PER_ROW:
            self._close_row()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._ops.append(file.op())
            if len(self._ops) >= _OPS_PER_ROW:
                self._close_row()

    def _close_row(self) -> None:
        if self._ops:
            self._rows.append(changes.pack(self._ops))
            self._ops = []

    def seal(self) -> None:
        """Make the contents durable and pack the operations; the modification takes no more. Called by `apply` if
        need be."""
        self._close_file()
        self._close_row()
        self._writer.seal()

    def apply(self, txn: Txn, row: filesets.CommitLike) -> None:
        """Append the stream to an open commit, in O(stream)."""
        ops = self.flush(txn)
        filesets.add(txn, row, ops, self.size)

    def flush(self, txn: Txn) -> Iterable[bytes]:
        """Make the contents part of the transaction; returns the packed operations, which are there until `close`."""
        self.seal()
        self._writer.flush(txn)
        return self._rows

    def make_ahead(self, commit_pb: pfs_pb2.Commit) -> filesets.Closing:
        """Make the tree of the commit that `modify_file` will make of this, outside of any transaction.

        Does nothing if it will go into an open commit, or cannot succeed. The modification takes no more. What is
        returned lets go of the tree, as `close` does.
        """
        self.seal()
        self._drop_ahead()
        with self._store.write(quiet=True) as txn:  # pieces that are joined are read from the store
            self._writer.store(txn)
        with self._store.read() as snapshot:
            try:
                base = _base_of_new(snapshot, commit_pb)
            except PachError:  # `modify_file` will say it
                base = None
            if base is None:
                return filesets.NOTHING
            made = filesets.Ahead(PagesAhead(snapshot), base[0])
            try:
                made.make(snapshot, self._rows, True)
            except BaseException:
                made.close()
                raise
        self._ahead = made
        self._store.checkpoint()
        return made

    def _drop_ahead(self) -> None:
        made, self._ahead = self._ahead, None
        if made is not None:
            made.close()

    def become_commit(self, txn: Txn, commit: Commit, commit_pb: pfs_pb2.Commit) -> None:
        """Be all that is in a commit that this transaction has just started for `commit_pb`, and finish it.

        Raises filesets.Large as told there.
        """
        row = refs.resolve_commit(txn, (commit.repo, commit.id))
        made = self._ahead
        if made is not None and filesets.base_root(txn, row) == made.base:
            self._writer.flush(txn)
            commits.finish_commit(txn, commit, made=made)
            return
        self.seal()
        if self._rows.size > changes.LARGE and filesets.can_retry(txn):
            raise filesets.Large(lambda: self.make_ahead(commit_pb), goes_on=False)
        self.apply(txn, row)
        commits.finish_commit(txn, commit)


def _base_of_new(txn: Snapshot, commit_pb: pfs_pb2.Commit) -> tuple[bytes | None] | None:
    """The tree that a commit will build on that `modify_file` makes for `commit_pb`; None if it will not make one.

    Raises PachError if it cannot.
    """
    branch, commit_id = _target(commit_pb)
    try:
        row = refs.resolve_commit(txn, commit_pb)
    except NotFound:
        if not branch:
            return None
    else:
        if commit_id or row.state == pfs_pb2.STARTED:
            return None
    target = refs.branch_key(commit_pb, branch)
    refs.repo_row(txn, target.repo)
    found = refs.find_branch(txn, target)
    parent = found["head_pk"] if found is not None else None
    return (filesets.base_below(txn, parent, branch, commit_id),)


def _target(commit_pb: pfs_pb2.Commit) -> tuple[str, str]:
    """(branch, commit ID) that `commit_pb` names, either may be ""."""
    branch, commit_id = commit_pb.branch.name, commit_pb.id
    if commit_pb.HasField("branch") and not branch and not refs.is_id(commit_id):
        return commit_id, ""
    return branch, commit_id


class _AppendedFile:
    """The file that is being appended to: a large one comes in many messages, and is hashed as it comes."""

    __slots__ = ("_data", "_hasher", "_refs", "_size", "key")

    def __init__(self, key: str, data: bytes, refs: tuple[int, ...]) -> None:
        self.key = key
        self._data = data
        self._refs = refs
        self._size = len(data)
        self._hasher: BlockHasher | None = None

    def append(self, data: bytes, refs: tuple[int, ...]) -> None:
        if self._hasher is None:
            self._hasher = BlockHasher()
            self._hasher.update(self._data)
            self._data = b""
        self._hasher.update(data)
        self._size += len(data)
        last = self._refs[-3:]
        if refs and last and refs[0] == last[0] and refs[1] == last[1] + last[2]:
            self._refs = (*self._refs[:-3], last[0], last[1], last[2] + refs[2])
        else:
            self._refs += refs

    def op(self) -> changes.Op:
        if self._hasher is None and self._size <= BLOCK:
            if not self._size:
                return (changes.ADD, self.key, *NO_CONTENT)
            inner = hashlib.blake2b(self._data, digest_size=32).digest()
            return (changes.ADD, self.key, self._size, hashlib.blake2b(inner, digest_size=32).digest(), self._refs, b"")
        if self._hasher is None:
            self._hasher = BlockHasher()
            self._hasher.update(self._data)
        digest, blocks = self._hasher.finish()
        return (changes.ADD, self.key, self._size, digest, self._refs, blocks)


def modify_file(txn: Txn, commit_pb: pfs_pb2.Commit, modification: Modification) -> bool:
    """Write a modification where `commit_pb` says; returns whether that made a commit.

    An open commit, named or the head of a branch, takes it. On a branch without a head, or with a finished one, it
    becomes a commit of its own, started and finished here. Raises PachError if the commit is named by its ID and has
    finished, or if a directory is deleted and what the commit builds on is not finished; filesets.Large as told there.
    """
    branch, commit_id = _target(commit_pb)
    try:
        row = refs.resolve_commit(txn, commit_pb)
    except NotFound:
        if not branch:
            raise
    else:
        if commit_id and row.state != pfs_pb2.STARTED:
            raise PachError(f"commit {row.repo}@{row.id} has already finished")
        if modification.clears and (row.state != pfs_pb2.FINISHED or row.error):
            filesets.base_root(txn, row)  # Pachyderm looks now which files are in the directory
        if row.state == pfs_pb2.STARTED:
            modification.apply(txn, row)
            return False
    modification.become_commit(txn, commits.start_commit(txn, refs.branch_key(commit_pb, branch)), commit_pb)
    return True
