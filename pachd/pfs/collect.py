"""Garbage collection and checking of files: which trees and contents the commits, open changes and file sets use."""

from collections.abc import Iterator

from pachd.pfs import changes, temporary
from pachd.store import Snapshot, Store
from pachd.store.fsck import Fsck, database
from pachd.store.gc import Collected, Roots, collect, containers_in


def roots(txn: Snapshot) -> Roots:
    """Everything that is in use."""
    trees = {row[0] for row in txn.db.execute("SELECT DISTINCT root FROM commits WHERE root IS NOT NULL")}
    containers: set[int] = set()
    for (ops,) in txn.db.execute("SELECT ops FROM change"):
        containers |= containers_in(changes.unpack(ops))
    for ops in temporary.rows_in_use(txn):
        containers |= containers_in(changes.unpack(ops))
    return Roots(trees, containers)


def garbage(store: Store) -> Collected:
    """Drop expired file sets, changes of deleted commits, and all pages and contents that nothing uses."""
    with store.write() as txn:
        temporary.expire(txn)
        txn.db.execute("DELETE FROM change WHERE commit_pk NOT IN (SELECT pk FROM commits)")
    return collect(store, roots)


def check(txn: Snapshot, rehash: bool = False) -> Iterator[str]:
    """What is wrong with the database, the packs and the files of every commit, a sentence each.

    rehash: read every byte and compare hashes, which takes as long as reading the whole store.
    """
    yield from database(txn)
    fsck = Fsck(txn, rehash)
    yield from fsck.packs()
    for row in txn.db.execute("SELECT id, root FROM commits WHERE root IS NOT NULL ORDER BY pk").fetchall():
        for error in fsck.tree(row["root"]):
            yield f"commit {row['id']}: {error}"
