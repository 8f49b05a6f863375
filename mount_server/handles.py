"""Open files: readers of commits and of staged contents, and the one writer that all handles of a path share."""

import os
from typing import TYPE_CHECKING

from mount_server.disk import disk, write_all
from mount_server.errors import BadHandle
from mount_server.journal import Staged
from mount_server.reader import FileReader
from mount_server.source import Piece

if TYPE_CHECKING:
    from mount_server.mount import Mount


class WriteFile:
    """A file being written: in memory while small, else a content file of the journal. Guarded by the mount's lock."""

    __slots__ = ("_blob", "_data", "_fd", "dirty", "gone", "handles", "mount", "mtime", "path")

    def __init__(self, mount: "Mount", path: str) -> None:
        self.mount, self.path = mount, path
        self.handles = 0
        self.mtime = mount.now()
        self.dirty = False
        self.gone = False  # unlinked: what is written goes nowhere
        self._data: bytearray | None = bytearray()
        self._blob, self._fd = "", -1

    @classmethod
    def of(cls, mount: "Mount", path: str, staged: Staged) -> "WriteFile":
        """Go on writing what is staged."""
        file = cls(mount, path)
        file.mtime = staged.mtime
        if staged.blob:
            file._data, file._blob = None, staged.blob
            file._fd = os.open(mount.journal.blobs / staged.blob, os.O_RDWR | os.O_CLOEXEC)
        else:
            file._data = bytearray(staged.data or b"")
        return file

    def load(self, reader: FileReader) -> None:
        """Take over the content of a commit's file before the first change."""
        for offset in range(0, reader.size, 1 << 20):
            self._write(offset, reader.read(offset, 1 << 20))

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._data) if self._data is not None else os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, fewer at the end."""
        if self._data is not None:
            return bytes(self._data[offset : offset + size])
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: Piece) -> None:
        """Write; a gap before `offset` reads as NUL bytes."""
        self._write(offset, data)
        self.dirty = True
        self.mtime = self.mount.now()

    def truncate(self, size: int) -> None:
        """Cut, or extend with NUL bytes."""
        if self._data is not None and size <= self.mount.inline_limit():
            if size < len(self._data):
                del self._data[size:]
            else:
                self._data.extend(bytes(size - len(self._data)))
        else:
            self._to_blob()
            with disk(f"/{self.path}"):
                os.ftruncate(self._fd, size)
        self.dirty = True
        self.mtime = self.mount.now()

    def staged(self) -> Staged:
        """The file as it is now."""
        data = None if self._data is None else bytes(self._data)
        return Staged("file", self.mount.journal.next_seq(), self.size, self.mtime, data, self._blob)

    @property
    def blob(self) -> str:
        """Name of the content file; "" while it is in memory."""
        return self._blob

    def close(self) -> None:
        """Let go of the content file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, offset: int, data: Piece) -> None:
        end = offset + len(data)
        if self._data is not None and end <= self.mount.inline_limit():
            if offset > len(self._data):
                self._data.extend(bytes(offset - len(self._data)))
            self._data[offset:end] = data
            return
        self._to_blob()
        with disk(f"/{self.path}"):
            write_all(self._fd, data, offset)

    def _to_blob(self) -> None:
        """Have a content file that may be changed: not one that a running commit is reading."""
        if self._data is None and self._blob not in self.mount.pinned_blobs:
            return
        journal = self.mount.journal
        name = journal.new_blob()
        with disk(f"/{self.path}"):
            fd = os.open(journal.blobs / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if self._data is not None:
                    write_all(fd, self._data, 0)
                else:
                    offset = 0
                    while piece := os.pread(self._fd, 1 << 20, offset):
                        write_all(fd, piece, offset)
                        offset += len(piece)
            except BaseException:  # the file stays as it was
                os.close(fd)
                journal.drop_blob(name)
                raise
        if self._fd >= 0:
            os.close(self._fd)
        self._data, self._blob, self._fd = None, name, fd


class StagedReader:
    """A staged file opened for reading: follows what other handles write to the same path."""

    def __init__(self, mount: "Mount", path: str, staged: Staged) -> None:
        self._mount, self._path, self._staged = mount, path, staged
        self._fd = self._open()

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, fewer at the end."""
        with self._mount.lock:
            writer = self._mount.writing.get(self._path)
            if writer is not None:
                return writer.read(offset, size)
            staged = self._mount.staged.get(self._path)
            if staged is not None and staged.kind == "file" and staged.seq != self._staged.seq:
                self.close()
                self._staged = staged
                self._fd = self._open()
        if self._fd >= 0:
            return os.pread(self._fd, size, offset)
        return (self._staged.data or b"")[offset : offset + size]

    def close(self) -> None:
        """Let go of the content file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if not self._staged.blob:
            return -1
        return os.open(self._mount.journal.blobs / self._staged.blob, os.O_RDONLY | os.O_CLOEXEC)


class Handle:
    """An open file of a mount.

    `identity` tells whether two opens of a path see the same immutable content (then the kernel may keep its pages);
    None: it may change.
    """

    __slots__ = ("append", "identity", "mount", "opened_as", "path", "reader", "writable", "writer")

    def __init__(self, mount: "Mount", path: str, append: bool = False) -> None:
        self.mount, self.path, self.append = mount, path, append
        self.reader: FileReader | StagedReader | None = None
        self.writer: WriteFile | None = None
        self.identity: bytes | None = None
        self.writable = False
        self.opened_as = ""  # for whoever counts opens by path

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, fewer at the end of the file."""
        if self.writer is not None:
            with self.mount.lock:
                return self.writer.read(offset, size)
        if self.reader is None:
            raise BadHandle(f"/{self.path} is not open for reading")
        return self.reader.read(offset, size)

    def write(self, offset: int, data: Piece) -> int:
        """Write; with `append`, at the end. Returns the number of bytes. :raises BadHandle: opened for reading."""
        with self.mount.lock:
            writer = self._writer()
            writer.write(writer.size if self.append else offset, data)
        return len(data)

    def truncate(self, size: int) -> None:
        """Cut, or extend with NUL bytes."""
        with self.mount.lock:
            self._writer().truncate(size)

    def flush(self, sync: bool = False) -> None:
        """Stage what was written; it survives kill -9 then, and with `sync` a power cut."""
        if self.writer is not None:
            self.mount.stage_writer(self.writer, sync)
        elif sync and self.writable:
            self.mount.journal.sync()

    def close(self) -> None:
        """Stage what was written and let go."""
        try:
            if self.writer is not None and self.writer.dirty:  # the kernel has it flushed first
                self.flush()
        finally:
            writer, self.writer = self.writer, None
            if writer is not None:
                self.mount.release_writer(writer)
            if self.reader is not None:
                self.reader.close()
                self.reader = None

    def _writer(self) -> WriteFile:
        if not self.writable:
            raise BadHandle(f"/{self.path} is open for reading only")
        if self.writer is None:
            self.writer = self.mount.writer(self.path)
            if self.reader is not None:
                self.reader.close()
                self.reader = None
        return self.writer
