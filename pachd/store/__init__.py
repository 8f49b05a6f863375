"""The data folder: transactions, trees of paths, contents, garbage collection, checks."""

from pachd.store.store import Savepoint, Snapshot, Store, StoreError, StoreInUse, Txn

__all__ = ["Savepoint", "Snapshot", "Store", "StoreError", "StoreInUse", "Txn"]
