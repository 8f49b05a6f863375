"""Where packs are: files beside the database, or objects on S3-compatible storage. Each pack stays where it was
written; which place takes new ones is said at the start."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator

from pachd.store import objects, system
from pachd.store.objects import ObjectStore, ObjectWriter, check_url
from pachd.store.packs import FolderPacks, PackWriter, Part
from pachd.store.store import Store, StoreError, Txn

OBJECT_SCHEMA = """
CREATE TABLE IF NOT EXISTS object_store (id INTEGER PRIMARY KEY, url TEXT NOT NULL, endpoint TEXT NOT NULL,
    folder TEXT NOT NULL, UNIQUE (url, endpoint));
CREATE TABLE IF NOT EXISTS object (container INTEGER PRIMARY KEY, store INTEGER NOT NULL, name TEXT NOT NULL);
"""


class Packs:
    """All packs of a store, by their container."""

    def __init__(self, store: Store, folder: str) -> None:
        self._folder = FolderPacks(folder)
        self._lock = threading.Lock()
        self._stores: dict[int, ObjectStore] = {}
        self._rows: dict[int, tuple[str, str, str]] = {}
        self._names: dict[int, tuple[int, str]] = {}
        self._new: int | None = None  # the object store that takes new packs
        self._cleaned = store.readonly
        with store.read() as snapshot:
            tables = {row[0] for row in snapshot.db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if "object" in tables:
                for row in snapshot.db.execute("SELECT id, url, endpoint, folder FROM object_store"):
                    self._rows[row["id"]] = (row["url"], row["endpoint"], row["folder"])
                for row in snapshot.db.execute("SELECT container, store, name FROM object"):
                    self._names[row["container"]] = (row["store"], row["name"])

    def use(self, store: Store, url: str, endpoint: str = "") -> None:
        """Put new packs onto object storage. Raises StoreError if it cannot be written to."""
        check_url(url)
        url, endpoint = url.rstrip("/"), endpoint.rstrip("/")
        found = [number for number, row in self._rows.items() if row[:2] == (url, endpoint)]
        if found:
            number = found[0]
        else:
            folder = system.random_bytes(8).hex()
            ObjectStore(url, endpoint, folder).probe()
            with store.write(quiet=True) as txn:
                cursor = txn.db.execute(
                    "INSERT INTO object_store (url, endpoint, folder) VALUES (?,?,?)", (url, endpoint, folder)
                )
                assert cursor.lastrowid is not None
                number = cursor.lastrowid
            self._rows[number] = (url, endpoint, folder)
        self._place(number).probe()
        self._new = number

    def _place(self, number: int) -> ObjectStore:
        with self._lock:
            place = self._stores.get(number)
            if place is None:
                if number not in self._rows:
                    raise StoreError(f"object storage {number} is unknown; run `pachd fsck` on the folder")
                place = self._stores[number] = ObjectStore(*self._rows[number])
            return place

    def clean(self, known: set[int]) -> int:
        """Remove files that no transaction names. Returns the greatest container that there was."""
        return self._folder.clean(known - self._names.keys())

    def present(self) -> set[int]:
        """The files that there are, named by a transaction or not."""
        return self._folder.present()

    def clean_objects(self) -> int:
        """Once per process: remove objects that no transaction names; returns how many."""
        if self._cleaned:
            return 0
        count = 0
        for number in self._rows:
            count += self._place(number).clean({name for where, name in self._names.values() if where == number})
        self._cleaned = True
        return count

    def where(self, container: int) -> str:
        """The file or the object of a pack, for people."""
        found = self._names.get(container)
        if found is None:
            return self._folder.path(container)
        return f"{'/'.join(self._rows.get(found[0], ('?', '', '?'))[::2])}/{found[1]}"

    def remote(self, container: int) -> bool:
        """Whether a pack is on object storage."""
        return container in self._names

    def create(self, container: int) -> PackWriter:
        """Begin a pack where new ones go."""
        if self._new is None:
            return self._folder.create(container)
        return _Recorded(self, self._new, self._place(self._new).create(container))

    def size(self, container: int, size: int) -> int | None:
        """How many of the `size` bytes of a pack there are; None if it is missing."""
        found = self._names.get(container)
        if found is None:
            return self._folder.size(container)
        return self._place(found[0]).size(found[1], size)

    def used(self, container: int) -> int:
        """The bytes that a pack takes on the disk."""
        return 0 if container in self._names else self._folder.used(container)

    def read(self, container: int, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a pack from `start`, in pieces. Raises StoreError if they are not there."""
        found = self._names.get(container)
        if found is None:
            return self._folder.read(container, start, length)
        return self._place(found[0]).read(found[1], start, length)

    def pieces(self, container: int, size: int) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what of a pack was not given back."""
        found = self._names.get(container)
        return self._folder.pieces(container, size) if found is None else self._object_pieces(*found)

    def _object_pieces(self, number: int, name: str) -> Iterator[tuple[int, bytes]]:
        place = self._place(number)
        for segment, size in sorted(place.sizes(name).items()):
            at = segment * objects.SEGMENT
            for piece in place.read(name, at, size):
                yield at, piece
                at += len(piece)

    def keep_only(self, container: int, size: int, parts: Iterable[Part]) -> int:
        """Give the space of everything but `parts` back, if that is worth it; returns how many bytes."""
        found = self._names.get(container)
        if found is None:
            return self._folder.keep_only(container, size, parts)
        return self._place(found[0]).keep_only(found[1], size, parts)

    def empty(self, container: int, size: int) -> None:
        """Give the space of a pack on the disk back that is about to be removed."""
        if container not in self._names:
            self._folder.keep_only(container, size, ())

    def forget_rows(self, txn: Txn, containers: Iterable[int]) -> None:
        """Remove the rows of packs in the transaction that deletes their containers."""
        gone = [(container,) for container in containers if container in self._names]
        if gone:
            txn.db.executemany("DELETE FROM object WHERE container=?", gone)

    def remove(self, containers: Iterable[int]) -> None:
        """Remove packs that nobody reads any more."""
        files: list[int] = []
        for container in containers:
            found = self._names.pop(container, None)
            if found is None:
                files.append(container)
            else:
                self._place(found[0]).remove([found[1]])
        self._folder.remove(files)

    def named(self, container: int, number: int, name: str) -> None:
        """A transaction names a pack on object storage; whoever sees that transaction finds it here."""
        self._names[container] = (number, name)

    def unnamed(self, container: int) -> None:
        """That transaction did not happen."""
        self._names.pop(container, None)

    def close(self) -> None:
        self._folder.close()
        for place in self._stores.values():
            place.close()


def forget_objects(db: sqlite3.Connection) -> None:
    """In a copy of a database whose packs have all become files."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if "object" in tables:
        with db:
            db.execute("DELETE FROM object")
            db.execute("DELETE FROM object_store")


class _Recorded:
    """A pack on object storage, noted in the database with the transaction that names it."""

    def __init__(self, packs: Packs, number: int, writer: ObjectWriter) -> None:
        self.container = writer.container
        self.write, self.seal = writer.write, writer.seal
        self._packs, self._number, self._writer = packs, number, writer

    @property
    def size(self) -> int:
        return self._writer.size

    def record(self, txn: Txn) -> None:
        txn.db.execute("INSERT INTO object VALUES (?,?,?)", (self.container, self._number, self._writer.name))
        self._packs.named(self.container, self._number, self._writer.name)

    def abort(self) -> None:
        self._packs.unnamed(self.container)
        self._writer.abort()
