"""Reading files of commits: through the cache, with read-ahead inside a file and over a directory's small files."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator

from mount_server.cache import SMALL, ReadCache
from mount_server.errors import MountError
from mount_server.listing import CommitTree, split
from mount_server.source import CommitRef, Entry, Piece, Source
from mount_server.waiting import about_to_wait

BULK_LIMIT = 64 * 1024 * 1024  # bytes; a directory of small files up to this size is fetched at once
BULK_WITHIN = 10.0  # seconds between two misses in one directory that start the read-ahead


class FileReader:
    """One file of a commit, opened for reading. Several threads may read."""

    def __init__(
        self, contents: "Contents", tree: CommitTree | None, ref: CommitRef, path: str, size: int, hash_: bytes
    ) -> None:
        self.size, self.hash = size, hash_
        self._contents, self._tree, self._ref, self._path = contents, tree, ref, path
        self._data: bytes | None = None
        self._end = 0
        self._large = contents.cache.open(hash_, size) if size > SMALL else None

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, fewer at the end. :raises MountError: pachd failed."""
        if self._large is None:
            if self._data is None:
                self._data = self._contents.small(self._tree, self._ref, self._path, self.size, self.hash)
            return self._data[offset : offset + size]
        # the kernel reads ahead with several requests at once: "a little out of order" is still sequential
        sequential = abs(offset - self._end) <= 1024 * 1024
        self._end = offset + size
        return self._large.read(offset, size, self._fetch, sequential)

    def close(self) -> None:
        """Let go of the cached file; what runs ahead for nobody is stopped."""
        if self._large is not None:
            large, self._large = self._large, None
            if large.users == 1:
                large.stop()
            self._contents.cache.release(large)

    def _fetch(self, offset: int, size: int) -> Iterator[Piece]:
        return self._contents.source.read(self._ref, self._path, offset, size)


class Contents:
    """Contents of files in commits: the cache and, behind it, the source."""

    def __init__(self, source: Source, cache: ReadCache) -> None:
        self.source, self.cache = source, cache
        self._lock = threading.Lock()
        self._misses: OrderedDict[tuple[CommitRef, str], float] = OrderedDict()
        self._bulk: dict[tuple[CommitRef, str], _Bulk] = {}

    def open(self, tree: CommitTree | None, ref: CommitRef, path: str, size: int, hash_: bytes) -> FileReader:
        """Open a file; nothing is fetched yet. With its tree given, the neighbours may be read ahead."""
        return FileReader(self, tree, ref, path, size, hash_)

    def small(self, tree: CommitTree | None, ref: CommitRef, path: str, size: int, hash_: bytes) -> bytes:
        """The whole content of a small file."""
        if size == 0:
            return b""
        data = self.cache.small(hash_, size)
        if data is not None:
            return data
        if tree is not None and (bulk := self._read_ahead(tree, ref, path)) is not None:
            bulk.wait(split(path)[1])
            data = self.cache.small(hash_, size)
            if data is not None:
                return data
        data = b"".join(self.source.read(ref, path, 0, 0))
        self.cache.add_small(hash_, data)
        return data

    def _read_ahead(self, tree: CommitTree, ref: CommitRef, path: str) -> "_Bulk | None":
        """The second miss in a directory within a short time fetches all of it, if all of it is small."""
        directory, name = split(path)
        key = (ref, directory)
        with self._lock:
            bulk = self._bulk.get(key)
            if bulk is not None:
                return bulk if not bulk.passed(name) else None
            now = time.monotonic()
            before = self._misses.pop(key, None)
            self._misses[key] = now
            while len(self._misses) > 1000:
                self._misses.popitem(last=False)
            if before is None or now - before > BULK_WITHIN:
                return None
            listing = tree.cached(directory)
            if listing is None or not _all_small(listing):
                return None
            bulk = self._bulk[key] = _Bulk()
        threading.Thread(target=self._run, args=(key, bulk, listing), name="read-ahead", daemon=True).start()
        return bulk

    def _run(self, key: tuple[CommitRef, str], bulk: "_Bulk", listing: dict[str, Entry]) -> None:
        try:
            for name, data in self.source.read_directory(*key):
                entry = listing.get(name)
                if entry is not None and entry.size == len(data):
                    self.cache.add_small(entry.hash, data)
                bulk.advance(name)
        except MountError:
            pass  # each reader asks for its own file then, and hears of the failure
        finally:
            with self._lock:
                self._bulk.pop(key, None)
                self._misses.pop(key, None)
            bulk.finish()


def _all_small(listing: dict[str, Entry]) -> bool:
    total = 0
    for entry in listing.values():
        total += entry.size
        if entry.is_dir or total > BULK_LIMIT:
            return False
    return True


class _Bulk:
    """Progress of a directory's read-ahead, which comes sorted by name."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._last = ""
        self._done = False

    def advance(self, name: str) -> None:
        with self._changed:
            self._last = name
            self._changed.notify_all()

    def finish(self) -> None:
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def passed(self, name: str) -> bool:
        return self._done or self._last >= name

    def wait(self, name: str) -> None:
        """Return when the file has come or will not come any more."""
        if not self.passed(name):
            about_to_wait()
        with self._changed:
            self._changed.wait_for(lambda: self.passed(name), timeout=30)
