"""What a step from one tree to the next can have changed.

Kept with each step are the paths concerned, as sorted checksums of 32 bits: they say that a path is the same in both
trees without opening them. Where they do not say so, or are not there, the trees have to be compared. A step is named
by its two trees, so whatever happens to commits, it stays true.
"""

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable

from pachd.pfs import paths
from pachd.store.store import Txn
from pachd.store.tree import path_of

LIMIT = 4096  # paths; what a larger step changed is not kept: comparing its trees is cheap beside what it was


def note(txn: Txn, base: bytes | None, root: bytes | None, keys: Iterable[str]) -> None:
    """Keep that the step from `base` to `root` can have changed these keys and no others."""
    touched: set[str] = set()
    for key in keys:
        path = path_of(key)
        touched.add(path)
        touched.update(paths.parents(path))
        if len(touched) > LIMIT:
            return
    if root is not None and root != base:
        sums = array("I", sorted({zlib.crc32(path.encode()) for path in touched}))
        txn.db.execute("INSERT OR REPLACE INTO step VALUES (?,?,?)", (root, base or b"", sums.tobytes()))


def note_idle(txn: Txn, commit_pk: int, keys: Iterable[str]) -> None:
    """Keep that a commit wrote these keys again as they were, or deleted them where they were not: they belong to its
    history."""
    found = {path_of(key) for key in keys}
    if len(found) <= LIMIT:
        txn.db.executemany("INSERT OR IGNORE INTO idle VALUES (?,?)", ((commit_pk, path) for path in found))


def can_differ(sums: bytes, path: str) -> bool:
    """Whether a step whose paths have these checksums can have changed a file or directory of this name."""
    known = array("I")
    known.frombytes(sums)
    clean = paths.clean(path)
    for name in (clean, paths.as_dir(clean)):
        sum = zlib.crc32(name.encode())
        at = bisect_left(known, sum)
        if at < len(known) and known[at] == sum:
            return True
    return False
