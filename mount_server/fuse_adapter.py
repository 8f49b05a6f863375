"""The FUSE binding: a thin adapter, arguments in, errno out. What things look like is `vfs.Vfs`'s business.

It runs on fusepy with libfuse 2, or on its twin mfusepy where there is libfuse 3 only. The former is faster by half:
`fuse_session` has the reasons.
"""

import ctypes
import errno
import functools
import inspect
import logging
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from mount_server import errors
from mount_server.vfs import Vfs

BINDING = "HOWDAH_FUSE"  # environment variable: `mfusepy` asks for it and libfuse 3


def _binding() -> Any:
    if (os.environ.get(BINDING) == "mfusepy" or not find_library("fuse")) and find_library("fuse3"):
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # mfusepy would rather have libfuse 2
        import mfusepy

        return mfusepy
    import fuse

    return fuse


fuse: Any = _binding()
_NUMBERED = fuse.__name__ == "mfusepy"  # it writes a number to each name, and C libraries skip names with the number 0

log = logging.getLogger(__name__)

CACHED = 1.0  # seconds the kernel keeps names and attributes; a new head is seen that late at most

ERRNO: dict[type[errors.MountError], int] = {
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.ReadOnly: errno.EROFS,
    errors.IllegalName: errno.EINVAL,
    errors.NotSupported: errno.EOPNOTSUPP,
    errors.CrossMount: errno.EXDEV,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.Unreachable: errno.EIO,
    errors.Denied: errno.EACCES,
    errors.Unauthenticated: errno.EACCES,
    errors.NoSpace: errno.ENOSPC,
    errors.BadHandle: errno.EBADF,
    errors.Conflict: errno.EBUSY,
}


def errno_of(error: errors.MountError) -> int:
    """The errno of a domain error; EIO where there is no better one. Never ENOSYS: the kernel would remember it."""
    for kind in type(error).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    return errno.EIO


class Operations(fuse.Operations):  # type: ignore[misc]
    """Callbacks of FUSE. Paths arrive as latin-1 text, so that no byte sequence fails to decode."""

    use_ns = True
    flag_nullpath_ok = True
    # what is None here is not announced to the kernel, which then does not ask at all
    getxattr = None
    setxattr = None
    listxattr = None
    removexattr = None
    access = None
    opendir = None
    releasedir = None
    readlink = None
    bmap = None
    ioctl = None
    lock = None
    destroy = None

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._uid, self._gid = os.getuid(), os.getgid()

    def getattr(self, path: str | None, fi: Any = None) -> dict[str, int]:
        if fi is not None:
            path, found = self._vfs.stat_handle(fi.fh)
        else:
            assert path is not None
            path = _text(path)
            found = self._vfs.stat(path)
        if found.is_dir:
            mode, links = stat.S_IFDIR | (0o755 if found.writable else 0o555), 2
        else:
            mode, links = stat.S_IFREG | (0o644 if found.writable else 0o444), 1
        return {
            "st_mode": mode,
            "st_nlink": links,
            "st_size": found.size,
            "st_blocks": (found.size + 511) // 512,
            "st_ino": self._vfs.inode(path),
            "st_uid": self._uid,
            "st_gid": self._gid,
            "st_atime": found.mtime,
            "st_mtime": found.mtime,
            "st_ctime": found.mtime,
        }

    def readdir(self, path: str | None, fh: int) -> list[Any]:
        if path is None:
            raise errors.NotFound("the directory was removed")
        names = self._vfs.list(_text(path))
        if not _NUMBERED:
            return [".", "..", *map(_raw, names)]
        parent = _text(path).rstrip("/")
        entries = [(_raw(name), {"st_ino": self._vfs.inode(f"{parent}/{name}")}, 0) for name in names]
        return [(".", {"st_ino": 1}, 0), ("..", {"st_ino": 1}, 0), *entries]

    def open(self, path: str, fi: Any) -> int:
        flags = fi.flags
        write = flags & os.O_ACCMODE != os.O_RDONLY
        try:
            number, keep, direct = self._vfs.open(
                _text(path), write, bool(flags & os.O_APPEND), bool(flags & os.O_TRUNC)
            )
        except errors.NotFound:  # it was there when the kernel looked: it looks again now, and may make it
            raise fuse.FuseOSError(errno.ESTALE) from None
        fi.fh, fi.keep_cache, fi.direct_io = number, keep, direct
        return 0

    def create(self, path: str, mode: int, fi: Any) -> int:
        fi.fh = self._vfs.create(_text(path), bool(fi.flags & os.O_APPEND))
        return 0

    def read(self, path: str | None, size: int, offset: int, fi: Any) -> bytes:
        return self._vfs.handle(fi.fh).read(offset, size)

    def write(self, path: str | None, data: bytes, offset: int, fi: Any) -> int:
        return self._vfs.handle(fi.fh).write(offset, data)

    def truncate(self, path: str | None, length: int, fi: Any = None) -> int:
        if fi is not None:
            self._vfs.handle(fi.fh).truncate(length)
        else:
            assert path is not None
            self._vfs.truncate(_text(path), length)
        return 0

    def flush(self, path: str | None, fi: Any) -> int:
        self._vfs.handle(fi.fh).flush()
        return 0

    def fsync(self, path: str | None, datasync: int, fi: Any) -> int:
        self._vfs.handle(fi.fh).flush(sync=True)
        return 0

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> int:
        self._vfs.mounts.journal.sync()
        return 0

    def release(self, path: str | None, fi: Any) -> int:
        self._vfs.close(fi.fh)
        return 0

    def unlink(self, path: str) -> int:
        self._vfs.unlink(_text(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._vfs.mkdir(_text(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._vfs.rmdir(_text(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._vfs.rename(_text(old), _text(new))
        return 0

    def link(self, target: str, source: str) -> int:
        self._vfs.link(_text(source), _text(target))
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._vfs.check_writable(_text(target).rpartition("/")[0] or "/")
        raise errors.NotSupported("Pachyderm keeps no symbolic links: copy the file instead")

    def mknod(self, path: str, mode: int, dev: int) -> int:
        if not stat.S_ISREG(mode):
            raise errors.NotSupported("Pachyderm keeps regular files only")
        self._vfs.close(self._vfs.create(_text(path), False))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._vfs.check_writable(_text(path))
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._vfs.check_writable(_text(path))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._vfs.touch(_text(path), times[1] if times else time.time_ns())
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        size, blocks, free = self._vfs.space()
        return {
            "f_bsize": size,
            "f_frsize": size,
            "f_blocks": blocks,
            "f_bfree": free,
            "f_bavail": free,
            "f_namemax": 255,
        }


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def run(*args: Any) -> Any:
        try:
            return call(*args)
        except errors.MountError as e:
            number = errno_of(e)
            if number not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
                level = logging.WARNING if isinstance(e, errors.TimedOut) else logging.INFO
                log.log(level, "%s: %s", call.__name__, e)
            raise fuse.FuseOSError(number) from e
        except OSError:
            raise
        except Exception as e:
            log.exception("%s failed", call.__name__)
            raise fuse.FuseOSError(errno.EIO) from e

    return run


# one by one: not every binding calls them through the object
for _name, _call in list(vars(Operations).items()):
    if inspect.isfunction(_call) and not _name.startswith("_"):
        setattr(Operations, _name, _guarded(_call))


class FuseMount:
    """One FUSE session in a thread of its own.

    :param mount_dir: is created if it is not there; a mount that a killed server left on it is cleaned away.
    :param on_end: called when the session ends by itself (someone unmounted the directory).
    """

    def __init__(
        self, vfs: Vfs, mount_dir: Path, on_end: Callable[[], None] | None = None, allow_other: bool = False
    ) -> None:
        self.mount_dir = mount_dir
        self._vfs, self._operations = vfs, Operations(vfs)
        self._on_end, self._allow_other = on_end, allow_other
        self._stopping = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="fuse", daemon=True)

    def start(self, timeout: float = 10.0) -> None:
        """Mount and return when it is there. :raises Conflict: it cannot be mounted there."""
        clean_stale(self.mount_dir)
        self.mount_dir.mkdir(parents=True, exist_ok=True)
        if next(os.scandir(self.mount_dir), None) is not None:
            raise errors.Conflict(
                f"mount directory {self.mount_dir} is not empty: choose another, or move its files away"
            )
        self._thread.start()
        end = time.monotonic() + timeout
        while not is_mounted(self.mount_dir):
            if self.error is not None or not self._thread.is_alive() or time.monotonic() > end:
                raise errors.Conflict(f"cannot mount on {self.mount_dir}: {self.error or 'FUSE did not start'}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Unmount. Programs that still have files open keep the mount alive, without a name, until they close them."""
        self._stopping = True
        if self._thread.ident is None:
            return  # it never began: what may be mounted there is somebody else's
        if is_mounted(self.mount_dir):
            _unmount(self.mount_dir, lazy=False) or _unmount(self.mount_dir, lazy=True)
        self._thread.join(5)

    def _run(self) -> None:
        options: dict[str, Any] = {
            "foreground": True,
            "fsname": "howdah",
            "subtype": "pfs",
            "attr_timeout": CACHED,
            "entry_timeout": CACHED,
            "negative_timeout": 0,
            "default_permissions": False,
        }
        options |= {"use_ino": True, "hard_remove": True}
        if fuse.__name__ == "fuse":
            options |= {"big_writes": True, "max_readahead": 1 << 20}
        if self._allow_other:
            options["allow_other"] = True
        options = {key: value for key, value in options.items() if value is not False}
        try:
            if fuse.__name__ == "fuse":
                from mount_server import fuse_session  # it takes fusepy's libfuse 2

                if fuse_session.available():
                    del options["foreground"]
                    fuse_session.Session(self._operations, self._vfs, str(self.mount_dir), errno_of, options)
                    return
            fuse.FUSE(self._operations, str(self.mount_dir), raw_fi=True, encoding="latin-1", **options)
        except Exception as e:
            self.error = e
        finally:
            _ignore_broken_pipes()
            if not self._stopping and self._on_end is not None:
                self._on_end()


def _ignore_broken_pipes() -> None:
    """Have SIGPIPE ignored again, as Python starts: libfuse resets it when it ends, and the next answer to a client
    that has gone away would end the process. Python's own call works in the main thread only."""
    ctypes.CDLL(None).signal(int(signal.SIGPIPE), ctypes.c_void_p(int(signal.SIG_IGN)))


def is_mounted(path: Path) -> bool:
    """Whether something is mounted right on this directory."""
    wanted = os.path.abspath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            point = (
                line.split(" ")[4]
                .encode("utf-8", "surrogateescape")
                .decode("unicode_escape")
                .encode("latin-1")
                .decode()
            )
            if point == wanted:
                return True
    return False


def clean_stale(path: Path) -> None:
    """Clean away the dead mount that a killed server left on our own directory.

    :raises Conflict: something living is mounted there.
    """
    if not is_mounted(path):
        return
    try:
        os.stat(path)
    except OSError as e:
        if e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
            _unmount(path, lazy=True)
            return
    raise errors.Conflict(f"something is mounted on {path} already: stop it, or choose another mount directory")


def _unmount(path: Path, lazy: bool) -> bool:
    for command in ("fusermount", "fusermount3"):
        try:
            done = subprocess.run(
                [command, "-u", *(["-z"] if lazy else []), str(path)], capture_output=True, timeout=20
            )
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return True
    return (
        subprocess.run(["umount", *(["-l"] if lazy else []), str(path)], capture_output=True, timeout=20).returncode
        == 0
    )


def _text(path: str) -> str:
    """Text of a path's bytes. What is no UTF-8 becomes characters that are legal nowhere."""
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "surrogateescape")


def _raw(name: str) -> str:
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")
