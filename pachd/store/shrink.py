"""Making the database smaller after much was deleted from it."""

import os
import shutil

from pachd.store.store import Store

_WORTH = 0.2  # part of the database that must be empty


def database(store: Store) -> int:
    """Write the database anew if much of it is empty and the disk has room for that; returns how many bytes it shrank.

    Takes as long as copying it, during which nobody writes: not for a pachd that serves.
    """
    path = os.path.join(store.path, "pachd.db")
    with store.exclusive() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        before = os.stat(path).st_size
        if free < pages * _WORTH or shutil.disk_usage(store.path).free < before * 2:
            return 0
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - os.stat(path).st_size
