"""The cache: values that clients keep under a key, with file sets that must not expire before."""

from collections.abc import Iterable

from google.protobuf.any_pb2 import Any

from pachd.errors import PachError
from pachd.pfs import temporary
from pachd.store import Snapshot, Txn


def put(txn: Txn, key: str, value: Any | None, file_sets: Iterable[str] = (), tag: str = "") -> None:
    """Keep a value and file sets under a key until `clear`; what the key has already stays. Raises PachError."""
    names = list(file_sets)
    for file_set in names:
        temporary.check_id(file_set)
    if value is None:
        raise PachError(
            'ERROR: null value in column "value_pb" of relation "cache" violates not-null constraint (SQLSTATE 23502)'
        )
    cursor = txn.db.execute(
        "INSERT OR IGNORE INTO cache (key, value, tag) VALUES (?,?,?)", (key, value.SerializeToString(), tag)
    )
    if not cursor.rowcount:
        kept = {
            row["file_set"][:32] for row in txn.db.execute("SELECT file_set FROM cache_file_set WHERE key=?", (key,))
        }
        if kept != {temporary.check_id(file_set) for file_set in names}:
            raise PachError("a different object exists at that id")
        return
    wanted = {temporary.require(txn, each, "the operation would create a dangling reference") for each in names}
    txn.db.executemany("INSERT INTO cache_file_set VALUES (?,?)", [(key, file_set) for file_set in sorted(wanted)])


def get(txn: Snapshot, key: str) -> Any:
    """Return the value of a key. Raises PachError, in the words of Pachyderm's database, if there is none."""
    row = txn.db.execute("SELECT value FROM cache WHERE key=?", (key,)).fetchone()
    if row is None:
        raise PachError("sql: no rows in result set")
    return Any.FromString(row["value"])


def clear(txn: Txn, tag_prefix: str = "") -> None:
    """Forget the entries whose tag begins with a prefix; their file sets expire as others do."""
    txn.db.execute("DELETE FROM cache WHERE substr(tag, 1, ?) = ?", (len(tag_prefix), tag_prefix))
