"""Changing the files of a commit: one stream of modifications, all of it or nothing.

A `Modification` is filled outside of any transaction, so that a slow client keeps nobody from writing; `apply` or
`modify_file` then makes it part of one.
"""

import hashlib

from pachd.errors import NotFound, PachError
from pachd.pfs import changes, commits, filesets, paths, refs
from pachd.proto import pfs_pb2
from pachd.store.contents import BLOCK, NO_CONTENT, BlockHasher, ContentWriter, containers_of, shared
from pachd.store.store import Snapshot, Store, Txn
from pachd.store.tree import Tree, path_of, tag_of

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
        self._rows: list[bytes] = []
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
        paths.validate(target)
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

    def flush(self, txn: Txn) -> list[bytes]:
        """Make the contents part of the transaction; returns the packed operations, which are then the caller's to
        keep."""
        self.seal()
        self._writer.flush(txn)
        return self._rows


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
    finished.
    """
    branch, commit_id = commit_pb.branch.name, commit_pb.id
    if commit_pb.HasField("branch") and not branch and not refs.is_id(commit_id):
        branch, commit_id = commit_id, ""
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
    target = refs.branch_key(commit_pb, branch)
    commit = commits.start_commit(txn, target)
    modification.apply(txn, refs.resolve_commit(txn, (commit.repo, commit.id)))
    commits.finish_commit(txn, commit)
    return True
