"""File sets: streams of modifications that belong to no commit yet, kept for a while under an ID.

An ID is 32 random hex digits, a point, and 64 digits that depend only on what is in it; the first part alone will do.
"""

import hashlib
import string
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from pachd.errors import NotFound, PachError
from pachd.pfs import changes, filesets
from pachd.pfs.modify import Modification
from pachd.pfs.read import View
from pachd.store import system
from pachd.store.pages import Pages
from pachd.store.store import Snapshot, Txn
from pachd.store.tree import Tree, path_of

REPO = "__filesets__"
DEFAULT_TTL = 30 * 60  # seconds
MAX_TTL = 30 * 60
_SECOND = 1_000_000_000
_NAMED = "id > ? AND id < ?"  # between the token with a point and with what follows a point
_ALIVE = "(expires >= ? OR id IN (SELECT file_set FROM cache_file_set))"
_SHARD_FILES, _SHARD_BYTES = 2_000_000, 1 << 30


def create(txn: Txn, modification: Modification, ttl: int = DEFAULT_TTL) -> str:
    """Keep a modification as a file set for `ttl` seconds; returns its ID."""
    return _keep(txn, list(modification.flush(txn)), modification.size, ttl)


def of_commit(txn: Txn, row: filesets.CommitLike, diff: bool = False, ttl: int = DEFAULT_TTL) -> str:
    """All files of a commit as a file set, or only what it changed with regard to its parent. Raises as
    `filesets.tree_of`."""
    tree = filesets.tree_of(txn, row)
    base = Tree(tree.pages, filesets.base_root(txn, row) if diff else None)
    ops: list[changes.Op] = []
    size = 0
    for before, after in tree.diff(base):
        if before is not None:
            ops.append((changes.DELETE, before[0]))
        if after is not None:
            ops.append((changes.ADD, *after))
            size += after[1]
    return _keep(txn, [changes.pack(ops)] if ops else [], size, ttl)


def add_to(txn: Txn, row: filesets.CommitLike, file_set: str) -> None:
    """Append a file set to an open commit. Raises PachError if there is none of this ID."""
    rows, size = _get(txn, file_set, "add file set: path does not exist")
    filesets.add(txn, row, rows, size)


def renew(txn: Txn, file_set: str, ttl: int) -> None:
    """Keep a file set for `ttl` seconds from now."""
    token = check_id(file_set)
    nanoseconds = (ttl * _SECOND + (1 << 63)) % (1 << 64) - (1 << 63)  # in 64 bits, as the error says it
    if nanoseconds < _SECOND:
        raise PachError(f"ttl ({nanoseconds}) must be at least one second")
    if nanoseconds > MAX_TTL * _SECOND:
        raise PachError(f"ttl ({nanoseconds}) exceeds max ttl ({MAX_TTL * _SECOND})")
    cursor = txn.db.execute(
        f"UPDATE file_set SET expires=? WHERE {_NAMED} AND {_ALIVE}",
        (txn.now + nanoseconds, f"{token}.", f"{token}/", system.now_ns()),
    )
    if not cursor.rowcount:
        raise NotFound(f"tracker does not contain item: (fileset/{token})")


def compose(txn: Txn, file_sets: Iterable[str], ttl: int) -> str:
    """One file set with the effect of several, one after the other."""
    rows: list[bytes] = []
    size = 0
    wanted = list(file_sets)
    for file_set in wanted:
        check_id(file_set)
    for file_set in wanted:
        more, bytes_ = _get(txn, file_set, "the operation would create a dangling reference")
        rows += more
        size += bytes_
    return _keep(txn, rows, size, ttl if ttl else DEFAULT_TTL)


def shard(txn: Snapshot, file_set: str, num_files: int = 0, size_bytes: int = 0) -> list[tuple[str, str]]:
    """Ranges of paths (lower, upper), "" at the ends, of about `num_files` files or `size_bytes` bytes each (0: a
    default)."""
    bounds: list[str] = []
    files = size = 0
    num_files, size_bytes = max(num_files, 0), max(size_bytes, 0)
    for entry in view(txn, file_set).tree.scan():
        path = path_of(entry[0])
        if files and (files >= (num_files or _SHARD_FILES) or size >= (size_bytes or _SHARD_BYTES)):
            bounds.append(path)
            files = size = 0
        files += 1
        size += entry[1]
    return list(zip(["", *bounds], [*bounds, ""], strict=True))


def view(txn: Snapshot, file_set: str) -> View:
    """The files of a file set."""
    collected = changes.Changes()
    for row in _get(txn, file_set, "path does not exist")[0]:
        collected.add(changes.unpack(row))
    tree, _added = collected.apply(Tree(Pages(txn), None), txn, None)
    return View(txn, tree, 0, f"default/{REPO}", file_set)


def expire(txn: Txn) -> int:
    """Drop file sets whose time is over; returns how many."""
    return txn.db.execute(f"DELETE FROM file_set WHERE NOT {_ALIVE}", (txn.now,)).rowcount


def any_expired(txn: Snapshot, now: int) -> bool:
    """Whether there are file sets whose time is over at `now` (ns)."""
    return txn.db.execute(f"SELECT 1 FROM file_set WHERE NOT {_ALIVE} LIMIT 1", (now,)).fetchone() is not None


def require(txn: Snapshot, file_set: str, error: str) -> str:
    """Return the whole ID of a file set. Raises PachError, with this text or for an ID that is none."""
    id: str = _row(txn, file_set, error)["id"]
    return id


def rows_in_use(txn: Snapshot) -> Iterator[bytes]:
    """The packed operations of all file sets."""
    for (ops,) in txn.db.execute("SELECT ops FROM file_set"):
        yield from unpack_rows(ops)


def unpack_rows(ops: bytes) -> list[bytes]:
    """The packed operations of a file set's row."""
    rows: list[bytes] = msgpack.unpackb(ops)
    return rows


def _keep(txn: Txn, rows: list[bytes], size: int, ttl: int) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for row in rows:
        for op in changes.unpack(row):
            digest.update(repr((op[0], *op[1:4])).encode())  # not where the bytes are
    file_set = f"{system.random_bytes(16).hex()}.{digest.hexdigest()}"
    txn.db.execute(
        "INSERT INTO file_set (id, bytes, ops, expires) VALUES (?,?,?,?)",
        (file_set, size, msgpack.packb(rows), txn.now + min(max(ttl, 1), MAX_TTL) * _SECOND),
    )
    return file_set


def check_id(file_set: str) -> str:
    """Return the part of an ID that names the file set. Raises PachError for what is no ID."""
    token = file_set.partition(".")[0].replace("-", "")
    length = len(token.encode())
    if length != 32:
        raise PachError(f"parsing fileset.Token: too {'short' if length < 32 else 'long'} to be Token len={length}")
    wrong = next((byte for byte in token.encode() if chr(byte) not in string.hexdigits), None)
    if wrong is not None:
        shown = f" '{chr(wrong)}'" if chr(wrong).isprintable() else ""
        raise PachError(f"encoding/hex: invalid byte: U+{wrong:04X}{shown}")
    return token.lower()


def _row(txn: Snapshot, file_set: str, error: str) -> Any:
    token = check_id(file_set)
    row = txn.db.execute(
        f"SELECT id, ops, bytes FROM file_set WHERE {_NAMED} AND {_ALIVE}",
        (f"{token}.", f"{token}/", system.now_ns()),
    ).fetchone()
    if row is None:
        raise PachError(error)
    return row


def _get(txn: Snapshot, file_set: str, error: str) -> tuple[list[bytes], int]:
    row = _row(txn, file_set, error)
    return msgpack.unpackb(row["ops"]), row["bytes"]
