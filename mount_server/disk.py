"""Writing to a disk that may be full: all of it, and errors that name what was not written."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mount_server.errors import MountError, NoSpace

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def disk(what: str) -> Iterator[None]:
    """Name what the disk refuses: NoSpace when it is full, else a MountError.

    :param what: what is being written, for the sentence.
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"the disk is full: {what} was not written; make room and try again") from e
        raise MountError(f"{what} cannot be written: {e.strerror or e}") from e


def sync_disk_of(directory: Path) -> None:
    """Make all that was written to the directory's file system survive a power cut. :raises OSError: it failed."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data`: a disk that is nearly full takes a part first. :raises OSError: it took no more."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
