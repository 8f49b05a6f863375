"""The data folder: transactions, trees of paths, contents, garbage collection, checks."""

from pachd.store.store import Savepoint, Snapshot, Store, StoreError, Txn

__all__ = ["Savepoint", "Snapshot", "Store", "StoreError", "Txn"]
