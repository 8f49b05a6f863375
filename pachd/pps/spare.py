"""Files and directories that a worker has done with, kept for what it makes next.

A file system with a journal takes longer to make and delete a small file than most of what is done with it, the longer
the more were deleted in the last minute.  So emptied directories and small files are moved out of the code's sight and
taken again.  A file that the code still holds open, has mapped or has linked elsewhere is not: the code would
see the next datum in it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

_MOST = 256  # files, and as many directories
_SMALL = 64 << 10  # bytes; larger files are deleted
_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Spare:
    """The spare files of one worker, in ``folder``, which must be on the worker's file system."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = str(folder)
        self._files: list[str] = []
        self._directories: list[str] = []
        self._count = 0
        umask = os.umask(0o077)
        os.umask(umask)
        self._mode, self._umask = 0o666 & ~umask, umask

    def _name(self) -> str:
        self._count += 1
        return f"{self._folder}/{self._count}"

    def remove(self, entry: os.DirEntry[str]) -> None:
        """Take away what is no directory."""
        if len(self._files) < _MOST and entry.is_file(follow_symlinks=False):
            info = entry.stat(follow_symlinks=False)
            if info.st_size <= _SMALL and info.st_nlink == 1:
                name = self._name()
                try:
                    os.rename(entry.path, name)
                except OSError:
                    pass
                else:
                    self._files.append(name)
                    return
        os.unlink(entry.path)

    def remove_directory(self, path: str) -> None:
        """Take away an empty directory. Raises OSError."""
        info = os.stat(path)
        if len(self._directories) < _MOST and info.st_mode == stat.S_IFDIR | self._mode | 0o111 & ~self._umask:
            name = self._name()
            os.rename(path, name)
            self._directories.append(name)
        else:
            os.rmdir(path)

    def make_directory(self, path: str) -> None:
        """Make a directory whose parent is there. Raises OSError."""
        if self._directories:
            os.rename(self._directories.pop(), path)
        else:
            os.mkdir(path)

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Make a file of these bytes, where there is none. Raises OSError."""
        while self._files:
            name = self._files.pop()
            try:
                fd = os.open(name, _FLAGS)
            except OSError:
                continue
            try:
                info = os.fstat(fd)
                if not self._usable(fd, info):
                    os.unlink(name)
                    continue
                size = _write(fd, parts)
                if size < info.st_size:
                    os.ftruncate(fd, size)
            finally:
                os.close(fd)
            os.rename(name, path)
            return
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write(fd, parts)
        finally:
            os.close(fd)

    def _usable(self, fd: int, info: os.stat_result) -> bool:
        if info.st_nlink != 1 or info.st_mode != stat.S_IFREG | self._mode or info.st_uid != os.geteuid():
            return False
        try:  # a lease to write is given only where nobody else has the file open or mapped
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True


def _write(fd: int, parts: Iterable[bytes]) -> int:
    total = 0
    for part in parts:
        view = memoryview(part)
        total += len(view)
        while view:
            view = view[os.write(fd, view) :]
    return total
