"""The seam to the machine: time, randomness, file operations.

Everything in pachd that depends on the clock, on chance or on the disk goes through here, so that a test can make any
of them fail or repeat. Replace a function on the module (`monkeypatch.setattr(system, "fsync", ...)`); callers always
say `system.name(...)`.
"""

import ctypes
import os
import time
import uuid

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h


def now_ns() -> int:
    """The wall clock in nanoseconds since 1970."""
    return time.time_ns()


def monotonic() -> float:
    """Seconds of a clock that never goes back; for durations and timeouts."""
    return time.monotonic()


def random_bytes(count: int) -> bytes:
    """`count` bytes nobody can guess."""
    return os.urandom(count)


def new_id() -> str:
    """A commit, transaction or job ID: a version 4 UUID as 32 hex digits without dashes."""
    return uuid.UUID(bytes=random_bytes(16), version=4).hex


def open_file(path: str, flags: int, mode: int = 0o600) -> int:
    """`os.open`: a file descriptor."""
    return os.open(path, flags | os.O_CLOEXEC, mode)


def write(fd: int, data: bytes | bytearray | memoryview) -> int:
    """`os.write`: how many bytes were taken, perhaps fewer than given."""
    return os.write(fd, data)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte of `data`."""
    view = memoryview(data)
    while view:
        view = view[write(fd, view) :]


def read_at(fd: int, size: int, offset: int) -> bytes:
    """`os.pread`: up to `size` bytes from `offset`."""
    return os.pread(fd, size, offset)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write every byte of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def truncate(fd: int, size: int) -> None:
    """`os.ftruncate`: give a file this size."""
    os.ftruncate(fd, size)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the space of a part of a file back; it reads as zeros then, and the file keeps its size.

    Raises OSError, EOPNOTSUPP where the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fsync(fd: int) -> None:
    """Return when the file's bytes are on the disk."""
    os.fsync(fd)


def fsync_dir(path: str) -> None:
    """Return when the names in a folder are on the disk: a new or renamed file is durable only after this."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(fd)
    finally:
        os.close(fd)


def rename(old: str, new: str) -> None:
    """`os.replace`: atomically give a file its final name."""
    os.replace(old, new)


def remove(path: str) -> None:
    """Remove a file; one that is gone already is no error."""
    try:
        os.remove(path)
    except FileNotFoundError:
        pass
