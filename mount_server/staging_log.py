"""The staging log: changes appended to a file, each of them there as a whole or not at all.

Closing a file costs one `write` here; what the log holds is moved into the journal's index in the background. A log is
a row of files: one that is being written, and older ones that wait to be moved. A record is its payload's length and
CRC-32 (little-endian, 32 bits each) and the payload, a MessagePack list `[mount, [[path, change], …], [path, …]]`.
"""

import contextlib
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from mount_server.disk import disk
from mount_server.errors import MountError, NoSpace
from mount_server.source import CommitRef

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<II")
_SUFFIX = ".log"


class Staged(NamedTuple):
    """One path that differs from the mount's commit.

    kind: `file` (content in `data`, or in the file `blob`), `copy` (the content of `source_path` in commit `source`),
    `deleted`, or `dir` (a local directory that no commit holds). `seq` grows with every change; `mtime` in nanoseconds.
    """

    kind: str
    seq: int
    size: int
    mtime: int
    data: bytes | None = None
    blob: str = ""
    source: CommitRef = CommitRef("", "", "")
    source_path: str = ""
    hash: bytes = b""


def staged_of(row: Sequence[Any]) -> Staged:
    """A change from its fields in their order, the commit it copies from in three of its own."""
    kind, seq, size, mtime, data, blob, project, repo, commit, source_path, hash_ = row
    return Staged(kind, seq, size, mtime, data, blob, CommitRef(project, repo, commit), source_path, hash_)


Changes = dict[str, dict[str, Staged | None]]
"""Mount -> path -> what is noted of it last; None: it was forgotten."""


class Batch(NamedTuple):
    """The changes of one file of the log that is no longer written to."""

    file: Path
    changes: Changes


class StagingLog:
    """The log of one state directory. The caller sees to it that one thread at a time uses it.

    :param directory: where its files are; those of a process that died are read, up to the first torn record.
    :raises MountError: the directory cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True, mode=0o700)
        self.waiting: list[Batch] = []
        number = 0
        for path in sorted(directory.glob("*" + _SUFFIX)):
            number = int(path.stem)
            changes: Changes = {}
            for mount, puts, forget in _records(path):
                _note(changes, mount, [(p, staged_of((*c[:6], *c[6], *c[7:]))) for p, c in puts], forget)
            self.waiting.append(Batch(path, changes))
        self._pack = msgpack.Packer().pack
        self._live: Changes = {}
        self._number = number
        self._fd, self._path = self._new_file()
        self.size = 0  # bytes in the file that is being written

    def append(self, mount: str, puts: Sequence[tuple[str, Staged]], forget: Iterable[str]) -> None:
        """Note changes, and paths whose changes are forgotten. They survive kill -9 when this returns.

        :raises NoSpace, MountError: the disk does not take them; nothing has changed.
        """
        forget = list(forget)
        payload = self._pack((mount, puts, forget))
        header = _HEADER.pack(len(payload), zlib.crc32(payload))
        size = len(header) + len(payload)
        try:
            written = os.writev(self._fd, (header, payload))
        except OSError as e:
            self._cut()
            with disk("what was staged"):
                raise e
        if written != size:
            self._cut()
            raise NoSpace("the disk with the mount server's state directory is full: nothing was noted")
        self.size += size
        _note(self._live, mount, puts, forget)

    def changes(self, mount: str) -> dict[str, Staged | None]:
        """What the log says of a mount; newer than whatever the index says."""
        found: dict[str, Staged | None] = {}
        for batch in self.waiting:
            found.update(batch.changes.get(mount, {}))
        found.update(self._live.get(mount, {}))
        return found

    def find(self, mount: str, path: str) -> tuple[bool, Staged | None]:
        """Whether the log knows something of a path, and what."""
        for changes in (self._live, *(batch.changes for batch in reversed(self.waiting))):
            of_mount = changes.get(mount)
            if of_mount is not None and path in of_mount:
                return True, of_mount[path]
        return False, None

    def mounts(self) -> set[str]:
        """The mounts that the log says something of."""
        return {mount for changes in (self._live, *(b.changes for b in self.waiting)) for mount in changes}

    def highest(self) -> int:
        """The highest `seq` in the log."""
        staged = (s for batch in self.waiting for paths in batch.changes.values() for s in paths.values())
        return max((s.seq for s in staged if s), default=0)

    def blobs(self) -> set[str]:
        """The content files that the log names."""
        return {s.blob for b in self.waiting for paths in b.changes.values() for s in paths.values() if s and s.blob}

    def sync(self) -> None:
        """Make the file that is being written survive a power cut."""
        os.fdatasync(self._fd)

    def prepare(self) -> tuple[int, Path]:
        """Make the next file, for `rotate`. This waits for the disk. :raises MountError: it is full."""
        with disk("the staging log"):
            return self._new_file()

    def rotate(self, file: tuple[int, Path]) -> int:
        """Go on in the next file; what was written so far waits to be moved. :return: the old file, to be synced."""
        old = self._fd
        self.waiting.append(Batch(self._path, self._live))
        self._live = {}
        self._fd, self._path = file
        self.size = 0
        return old

    def moved(self) -> None:
        """Forget the oldest waiting batch: the index has it durably."""
        self.waiting.pop(0).file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and delete it if nothing is in it."""
        os.close(self._fd)
        if not self.size:
            self._path.unlink(missing_ok=True)

    def _new_file(self) -> tuple[int, Path]:
        self._number += 1
        path = self._directory / f"{self._number:010}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return fd, path

    def _cut(self) -> None:
        """Remove a record that was written in part: what comes after it could not be read."""
        try:
            os.ftruncate(self._fd, self.size)
        except OSError as e:
            raise MountError(f"the staging log {self._path} is damaged ({e.strerror}): restart the server") from e


def _note(changes: Changes, mount: str, puts: Iterable[tuple[str, Staged]], forget: Iterable[str]) -> None:
    of_mount = changes.setdefault(mount, {})
    for path in forget:
        of_mount[path] = None
    of_mount.update(puts)


def _records(path: Path) -> Iterator[tuple[str, list[tuple[str, list[Any]]], list[str]]]:
    """The records of a file up to the first that is not whole: what follows was never acknowledged as durable."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        payload = b""
        with contextlib.suppress(struct.error):
            size, crc = _HEADER.unpack_from(data, at)
            payload = data[at + _HEADER.size : at + _HEADER.size + size]
            if not size or len(payload) < size or zlib.crc32(payload) != crc:
                payload = b""
        if not payload:
            log.warning("%s: the last %d bytes are torn and left out", path, len(data) - at)
            return
        yield msgpack.unpackb(payload)
        at += _HEADER.size + len(payload)
