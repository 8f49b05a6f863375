"""Packs: the files that hold contents too large for the database.

A pack is written once, by one stream, and synced before the transaction that names it. Its bytes keep their places for
as long as it lives; parts that nobody uses any more become holes, which take no space.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pachd.store import system
from pachd.store.store import StoreError, Txn

PIECE = 1 << 20  # bytes read at once
_OPEN_PACKS = 128
_BLOCK = 4096
_WORTH = 256 << 10  # dead bytes for which a pack is touched, or a quarter of it if it is small
_SUFFIX = ".pack"

Part = tuple[int, int]
"""(first byte, byte behind the last) of a part of a pack."""


class PackWriter(Protocol):
    """A pack being written, outside of any transaction."""

    container: int

    @property
    def size(self) -> int:
        """The bytes written so far."""

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when the disk does not take it."""

    def seal(self) -> None:
        """Return when the bytes are durable; nothing can be appended then. Twice is no error."""

    def record(self, txn: Txn) -> None:
        """Note in the transaction that names the pack where it is."""

    def abort(self) -> None:
        """Remove it: no transaction names it."""


class FolderPacks:
    """Packs as files of one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._fds: dict[int, int] = {}

    def clean(self, known: set[int]) -> int:
        """Remove what no transaction names: its process ended before. Returns the greatest container there was."""
        last = 0
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for name in os.listdir(self.folder):
            stem, _, suffix = name.partition(".")
            container = int(stem, 16)
            last = max(last, container)
            if container not in known or f".{suffix}" != _SUFFIX:
                system.remove(os.path.join(self.folder, name))
        return last

    def present(self) -> set[int]:
        """The packs that there are, named by a transaction or not."""
        return {int(name.partition(".")[0], 16) for name in os.listdir(self.folder) if name.endswith(_SUFFIX)}

    def path(self, container: int) -> str:
        return os.path.join(self.folder, f"{container:x}{_SUFFIX}")

    def create(self, container: int) -> PackWriter:
        """Begin a pack."""
        return _FileWriter(self, container)

    def size(self, container: int) -> int | None:
        """Its bytes; None if it is missing."""
        try:
            return os.stat(self.path(container)).st_size
        except FileNotFoundError:
            return None

    def used(self, container: int) -> int:
        """The bytes that it takes on the disk; 0 if it is missing."""
        try:
            return os.stat(self.path(container)).st_blocks * 512
        except FileNotFoundError:
            return 0

    def read(self, container: int, start: int, length: int) -> Iterator[bytes]:
        """Its bytes from `start`, in pieces. Raises StoreError if they are not there."""
        fd = self._open(container)
        try:
            while length:
                piece = system.read_at(fd, min(length, PIECE), start)
                if not piece:
                    raise StoreError(f"pack {container:x} is too short; run `pachd fsck` on its folder")
                yield piece
                start, length = start + len(piece), length - len(piece)
        finally:
            os.close(fd)

    def pieces(self, container: int, size: int) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what is not a hole. Raises StoreError if it is missing."""
        fd = self._open(container)
        try:
            yield from data_of(fd, size)
        finally:
            os.close(fd)

    def _open(self, container: int) -> int:
        with self._lock:
            fd = self._fds.get(container)
            if fd is None:
                if len(self._fds) >= _OPEN_PACKS:
                    os.close(self._fds.pop(next(iter(self._fds))))
                try:
                    fd = self._fds[container] = system.open_file(self.path(container), os.O_RDONLY)
                except FileNotFoundError as err:
                    raise StoreError(f"{self.path(container)} is missing; run `pachd fsck` on its folder") from err
            return os.dup(fd)  # so that nobody closes it under a reader

    def remove(self, containers: Iterable[int]) -> None:
        """Remove packs that nobody reads any more."""
        for container in containers:
            self._forget(container)
            system.remove(self.path(container))

    def _forget(self, container: int) -> None:
        with self._lock:
            fd = self._fds.pop(container, None)
            if fd is not None:
                os.close(fd)

    def keep_only(self, container: int, size: int, parts: Iterable[Part]) -> int:
        """Give the space of everything but `parts` back to the disk, if that is worth it; returns how many bytes."""
        live = merged(parts)
        gaps = list(_gaps(live, size))
        before = self.used(container)
        dead = before - (_up(size) - sum(stop - start for start, stop in gaps))
        if not gaps or dead < min(_WORTH, max(size // 4, _BLOCK)):
            return 0
        fd = system.open_file(self.path(container), os.O_RDWR)
        try:
            for start, stop in gaps:
                system.punch_hole(fd, start, stop - start)
            system.fsync(fd)
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
                raise
            self._copy_parts(container, fd, size, live)
        finally:
            os.close(fd)
        return max(0, before - self.used(container))

    def _copy_parts(self, container: int, source: int, size: int, parts: Sequence[Part]) -> None:
        """Where the file system cannot make holes: a new file with them takes the place of the old one."""
        path = self.path(container)
        try:
            target = system.open_file(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                copy_parts(source, target, size, parts)
                system.fsync(target)
            finally:
                os.close(target)
            system.rename(path + ".new", path)
        except BaseException:
            system.remove(path + ".new")
            raise
        system.fsync_dir(self.folder)
        self._forget(container)

    def close(self) -> None:
        with self._lock:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()


class _FileWriter:
    def __init__(self, packs: FolderPacks, container: int) -> None:
        self.container = container
        self._size = 0
        self._packs = packs
        self._fd = system.open_file(packs.path(container), os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    @property
    def size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        system.write_all(self._fd, data)
        self._size += len(data)

    def seal(self) -> None:
        if self._fd >= 0:
            system.fsync(self._fd)
            self._close()
            system.fsync_dir(self._packs.folder)

    def record(self, txn: Txn) -> None:
        pass

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def abort(self) -> None:
        self._close()
        system.remove(self._packs.path(self.container))


def merged(parts: Iterable[Part]) -> list[Part]:
    """Parts in order, none touching another."""
    out: list[Part] = []
    for start, stop in sorted(parts):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        elif stop > start:
            out.append((start, stop))
    return out


def _up(offset: int) -> int:
    return -(-offset // _BLOCK) * _BLOCK


def _gaps(live: Sequence[Part], size: int) -> Iterator[Part]:
    """The whole blocks between the parts."""
    at = 0
    for start, stop in (*live, (_up(size), 0)):
        first, last = _up(at), start // _BLOCK * _BLOCK
        if last > first:
            yield first, last
        at = stop


def data_of(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what is not a hole in a file of this size, in pieces."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole to the end
            return
        stop = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        while at < stop:
            piece = system.read_at(fd, min(PIECE, stop - at), at)
            if not piece:
                return
            yield at, piece
            at += len(piece)


def copy_parts(source: int, target: int, size: int, parts: Iterable[Part]) -> None:
    """Make the empty file `target` a copy of `source` with these parts only, of the same size."""
    for start, stop in parts:
        while start < stop:
            piece = system.read_at(source, min(PIECE, stop - start), start)
            if not piece:
                break
            system.write_at(target, piece, start)
            start += len(piece)
    system.truncate(target, size)
