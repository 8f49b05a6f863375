"""The read cache: contents by hash, bounded, small ones in memory, large ones as sparse files on disk.

Large files are fetched in blocks. A reader that goes on where it stopped gets a stream that runs ahead of it; a reader
that jumps gets just the blocks it needs.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from mount_server.disk import disk, write_all
from mount_server.errors import MountError, PachdFailed
from mount_server.source import Piece
from mount_server.waiting import about_to_wait

BLOCK = 128 * 1024  # bytes; what the kernel asks for at a time
SMALL = 128 * 1024  # bytes; files up to this size are kept whole, in memory
AHEAD = 64 * 1024 * 1024  # bytes a stream may be ahead of its reader
AHEAD_AT_FIRST = 2 * 1024 * 1024  # bytes ahead of one who has read nothing yet: it may be after a header only

Fetch = Callable[[int, int], Iterator[Piece]]  # (offset, size; 0 = to the end) -> pieces


class ReadCache:
    """Contents of PFS files.

    :param directory: emptied of half-fetched files at start; may be deleted while no server runs.
    :param disk_limit: bytes of large files kept on disk.
    :param memory_limit: bytes of small files kept in memory.
    """

    def __init__(self, directory: Path, disk_limit: int = 10 << 30, memory_limit: int = 256 << 20) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._disk_limit, self._memory_limit = disk_limit, memory_limit
        self._lock = threading.Lock()
        self._small: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._small_bytes = 0
        self._large: OrderedDict[tuple[bytes, int], CachedFile] = OrderedDict()
        self._large_bytes = 0
        complete = []
        for entry in os.scandir(directory):
            stem, _, size = entry.name.partition("-")
            stat = entry.stat()
            if size.isdigit() and stat.st_size == int(size):
                complete.append((stat.st_mtime, stem, int(size)))
            else:
                os.unlink(entry.path)
        for _, stem, length in sorted(complete):
            file = CachedFile(directory / f"{stem}-{length}", length, complete=True)
            self._large[bytes.fromhex(stem), length] = file
            self._large_bytes += length
        self._evict()

    def small(self, hash_: bytes, size: int) -> bytes | None:
        """A small file's content if it is here."""
        with self._lock:
            data = self._small.get((hash_, size))
            if data is not None:
                self._small.move_to_end((hash_, size))
            return data

    def add_small(self, hash_: bytes, data: bytes) -> None:
        """Keep a small file's content."""
        key = (hash_, len(data))
        with self._lock:
            if key in self._small:
                return
            self._small[key] = data
            self._small_bytes += len(data) + 200
            while self._small_bytes > self._memory_limit and len(self._small) > 1:
                _, old = self._small.popitem(last=False)
                self._small_bytes -= len(old) + 200

    def open(self, hash_: bytes, size: int) -> "CachedFile":
        """A large file, with what is already here of it. The caller closes it with `release`."""
        key = (hash_, size)
        with self._lock:
            file = self._large.get(key)
            if file is None:
                file = self._large[key] = CachedFile(self.directory / f"{hash_.hex()}-{size}", size)
                self._large_bytes += size
            self._large.move_to_end(key)
            file.users += 1
        self._evict()
        return file

    def release(self, file: "CachedFile") -> None:
        """End the use of a file that `open` gave."""
        with self._lock:
            file.users -= 1
        self._evict()

    def used(self) -> tuple[int, int]:
        """Bytes in memory and on disk."""
        with self._lock:
            return self._small_bytes, self._large_bytes

    def _evict(self) -> None:
        with self._lock:
            for key, file in list(self._large.items()):
                if self._large_bytes <= self._disk_limit:
                    return
                if file.users == 0:
                    del self._large[key]
                    self._large_bytes -= file.size
                    file.remove()


class CachedFile:
    """One large file in the cache: a sparse file and a map of the blocks that are in it."""

    def __init__(self, path: Path, size: int, complete: bool = False) -> None:
        self.path, self.size, self.users = path, size, 0
        self._partial = path.with_name(path.name + ".part")
        self._fd = -1
        self._blocks = bytearray((size + BLOCK - 1) // BLOCK)
        self._complete = complete
        self._changed = threading.Condition()
        self._stream: _Stream | None = None
        if complete:
            self._blocks = bytearray(b"\1" * len(self._blocks))

    def read(self, offset: int, size: int, fetch: Fetch, sequential: bool) -> bytes:
        """Bytes from `offset`, fewer at the end of the file.

        :param fetch: how to get what is missing.
        :param sequential: the reader goes on where it stopped: run ahead of it.
        :raises MountError: pachd failed.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        if not self._complete:
            self._ensure(offset, end, fetch, sequential)
        return os.pread(self._file(), end - offset, offset)

    def stop(self) -> None:
        """End the stream that runs ahead, if there is one."""
        with self._changed:
            if self._stream is not None:
                self._stream.stopped = True
                self._changed.notify_all()

    def remove(self) -> None:
        """Delete the file. Nobody may be using it."""
        self.stop()
        with self._changed:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        for path in (self.path, self._partial):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _file(self) -> int:
        if self._fd < 0:
            with self._changed:
                if self._fd < 0:
                    path = self.path if self._complete else self._partial
                    self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd

    def _missing(self, offset: int, end: int) -> tuple[int, int] | None:
        """First and last missing block of a range of bytes."""
        first = self._blocks.find(0, offset // BLOCK, (end - 1) // BLOCK + 1)
        return None if first < 0 else (first, self._blocks.rfind(0, first, (end - 1) // BLOCK + 1))

    def _ensure(self, offset: int, end: int, fetch: Fetch, sequential: bool) -> None:
        with self._changed:
            while True:
                if self._stream is not None:
                    # what is read now may end a pause of the stream
                    if self._stream.wanted < end:
                        self._stream.wanted = end
                        self._changed.notify_all()
                missing = self._missing(offset, end)
                if missing is None:
                    return
                stream = self._stream
                position = missing[0] * BLOCK
                if (
                    stream is not None
                    and stream.error is None
                    and stream.position <= position < stream.position + AHEAD // 8
                ):
                    about_to_wait()
                    self._changed.wait(60)
                    continue
                if stream is not None and stream.error is not None:
                    error, self._stream = stream.error, None
                    raise error
                if sequential:
                    if stream is not None:
                        stream.stopped = True
                        self._changed.notify_all()
                    self._stream = _Stream(position, end)
                    threading.Thread(
                        target=self._run, args=(self._stream, fetch), name="read-ahead", daemon=True
                    ).start()
                    continue
                break
        start, stop = missing[0] * BLOCK, min((missing[1] + 1) * BLOCK, self.size)
        at = start
        for data in fetch(start, stop - start):
            at = self._store(start, at, data)
        if self._missing(offset, end) is not None:
            raise PachdFailed(f"pachd sent fewer bytes than the file has ({self.size})")

    def _run(self, stream: "_Stream", fetch: Fetch) -> None:
        pieces: Iterator[Piece] | None = None
        try:
            pieces = fetch(stream.position, 0)
            for data in pieces:
                at = self._store(stream.start, stream.position, data)
                with self._changed:
                    stream.position = at
                    self._changed.notify_all()
                    while not stream.stopped and stream.position > stream.limit():
                        self._changed.wait(5)
                    if stream.stopped:
                        return
            if stream.position < self.size:
                raise PachdFailed(f"pachd sent {stream.position} bytes of a file that has {self.size}")
        except MountError as e:
            stream.error = e
        except Exception as e:  # a reader waits for this thread: it must hear of any failure
            stream.error = PachdFailed(f"reading ahead failed: {e}")
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
            with self._changed:
                if self._stream is stream and stream.error is None:
                    self._stream = None
                self._changed.notify_all()

    def _store(self, start: int, offset: int, data: Piece) -> int:
        """Keep a piece of a transfer that began at `start`, a block's border. :return: where the next piece belongs."""
        end = offset + len(data)
        with disk("the read cache"):
            # all of it, or its blocks would count as fetched and read as NUL bytes
            write_all(self._file(), data, offset)
        first = max(offset // BLOCK, start // BLOCK)
        # only the file's last block may be short
        last = len(self._blocks) if end >= self.size else end // BLOCK
        if first < last:
            with self._changed:
                self._blocks[first:last] = b"\1" * (last - first)
                if not self._complete and 0 not in self._blocks:
                    os.rename(self._partial, self.path)
                    self._complete = True
        return end


class _Stream:
    """A transfer that runs ahead of a reader. All fields are guarded by the file's condition."""

    def __init__(self, position: int, wanted: int) -> None:
        self.start, self.position, self.wanted = position, position, wanted
        self.stopped = False
        self.error: MountError | None = None

    def limit(self) -> int:
        """How far it may run now: the further its reader has come, the further ahead."""
        return self.wanted + min(AHEAD, AHEAD_AT_FIRST + 4 * (self.wanted - self.start))
