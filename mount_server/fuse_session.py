"""libfuse 2 driven by threads of Python, with the callbacks that are called most spoken to without fusepy's detour.

fusepy lets libfuse make threads, and Python has to make itself at home in each of them anew at every call; that and
the conversions of arguments cost more than all that the calls do. Here `fuse_loop` receives, in threads of Python.
"""

import contextlib
import ctypes
import errno
import functools
import logging
import os
import stat
import struct
from collections.abc import Callable
from typing import Any

import fuse

from mount_server import errors
from mount_server.fuse_loop import Loop
from mount_server.fuse_nodes import Nodes
from mount_server.overlay import Attr
from mount_server.source import Piece
from mount_server.vfs import Vfs

log = logging.getLogger(__name__)

_POINTER, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_SIZE, _MODE = ctypes.c_size_t, ctypes.c_uint
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "getattr": (_TEXT, _POINTER),
    "fgetattr": (_TEXT, _POINTER, _POINTER),
    "create": (_TEXT, _MODE, _POINTER),
    "open": (_TEXT, _POINTER),
    "release": (_TEXT, _POINTER),
}

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {  # of libfuse: what they return and take
    "fuse_get_session": (_POINTER, (_POINTER,)),
    "fuse_session_next_chan": (_POINTER, (_POINTER, _POINTER)),
    "fuse_session_process": (None, (_POINTER, _POINTER, _SIZE, _POINTER)),
    "fuse_chan_bufsize": (_SIZE, (_POINTER,)),
    "fuse_chan_fd": (_INT, (_POINTER,)),
}

# FUSE's protocol, <linux/fuse.h>: the requests that need nothing of libfuse, as they speak of open files only,
_READ, _WRITE, _RELEASE, _FLUSH, _IOCTL = 15, 16, 18, 25, 39
# the one that needs it only if something is found, and those that change what a node's path is
_LOOKUP, _FORGETS, _RENAMES = 1, (2, 42), (12, 45)  # one node, or several; as it was, or with flags
_REQUEST = struct.Struct("=IIQQ16x")  # length, what is asked, number, node
_OPENED = struct.Struct("=QQI")  # handle, offset, size; data written are further on
_DATA_AT = _REQUEST.size + 40
_ANSWER = struct.Struct("=IiQ")  # length, errno, number of the request
_WRITTEN = struct.Struct("=II")

_NUMBER = ctypes.c_uint64

# struct stat of Linux on x86-64
_STAT = struct.Struct("=QQQIIIIQqqqqqqqqq")
_STAT_BYTES = ctypes.c_char * _STAT.size


def available() -> bool:
    """Whether the library and the machine are those that this module knows."""
    library = getattr(fuse, "_libfuse", None)
    known = (*_FUNCTIONS, "fuse_setup", "fuse_teardown")
    return (
        os.uname().machine == "x86_64"
        and ctypes.sizeof(fuse.c_stat) == _STAT.size
        and library is not None
        and all(hasattr(library, name) for name in known)
    )


class Session(fuse.FUSE):  # type: ignore[misc]
    """A mounted file system; construction returns when it is unmounted.

    :param operations: fusepy's operations, for what is not called often.
    :param vfs: what the frequent calls go to.
    :param errno_of: the errno of a domain error.
    :param options: of libfuse, as fusepy takes them.
    :raises RuntimeError: libfuse cannot mount.
    """

    def __init__(
        self,
        operations: fuse.Operations,
        vfs: Vfs,
        mountpoint: str,
        errno_of: Callable[[errors.MountError], int],
        options: dict[str, Any],
    ) -> None:
        self.operations, self.raw_fi, self.encoding, self.use_ns = operations, True, "latin-1", True
        self._vfs, self._errno_of, self._nodes = vfs, errno_of, Nodes()
        self._identity = os.getuid(), os.getgid()
        table = self._table()
        library = fuse._libfuse
        arguments = ["fuse", "-f", "-o", ",".join(self._normalize_fuse_options(**options)), mountpoint]
        argv = (_TEXT * len(arguments))(*(os.fsencode(a) for a in arguments))
        library.fuse_setup.restype = _POINTER
        where, threaded = _POINTER(), _INT()
        handle = library.fuse_setup(
            len(argv), argv, ctypes.byref(table), _SIZE(ctypes.sizeof(table)),
            ctypes.byref(where), ctypes.byref(threaded), None,
        )  # fmt: skip
        if not handle:
            raise RuntimeError("libfuse cannot mount there: is /dev/fuse there, and may this user mount?")
        self._make_loop(library, _POINTER(handle)).run()
        library.fuse_teardown(_POINTER(handle), where)

    def _make_loop(self, library: Any, handle: Any) -> Loop:
        """What receives. libfuse takes apart what is not answered here."""
        for name, (returned, taken) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = returned, taken
        session = _POINTER(library.fuse_get_session(handle))
        channel = _POINTER(library.fuse_session_next_chan(session, None))
        fd, process = library.fuse_chan_fd(channel), library.fuse_session_process
        direct = {_READ: self._read, _WRITE: self._write, _RELEASE: self._closed, _FLUSH: self._flush}
        nodes = self._nodes

        def answer(request: memoryview, address: int, size: int) -> None:
            _, opcode, number, node = _REQUEST.unpack_from(request)
            data: Piece = b""
            status = 0
            call = direct.get(opcode)
            if call is None:
                if opcode == _LOOKUP and (nodes.missing or nodes.path(node) is None):
                    status = self._look(node, request[_REQUEST.size : size - 1].tobytes())
                    if not status:
                        process(session, address, size, channel)
                        nodes.here.asked = nodes.here.found = None
                        return
                elif opcode == _IOCTL:  # Python asks each file that it opens whether it is a terminal
                    status = -errno.ENOTTY
                elif opcode in _RENAMES:
                    with nodes.renaming():
                        process(session, address, size, channel)
                    return
                else:
                    process(session, address, size, channel)
                    if opcode in _FORGETS:
                        nodes.forget(node if opcode == _FORGETS[0] else None)
                    return
            else:
                try:
                    data = call(request)
                except Exception as e:
                    status = self._failed(call.__name__[1:], e)
            with contextlib.suppress(FileNotFoundError):  # whoever asked has given up
                if data:
                    os.writev(fd, (_ANSWER.pack(_ANSWER.size + len(data), status, number), data))
                else:
                    os.write(fd, _ANSWER.pack(_ANSWER.size, status, number))

        return Loop(fd, library.fuse_chan_bufsize(channel), answer)

    def _table(self) -> Any:
        table = fuse.fuse_operations()
        self._callbacks = []  # C keeps only their addresses
        for name, prototype, *_ in fuse.fuse_operations._fields_:
            theirs = name[1:] if name in ("ftruncate", "fgetattr") else name
            if getattr(self.operations, theirs, None) is None:
                continue
            if name in _ARGUMENTS:
                callback = ctypes.CFUNCTYPE(_INT, *_ARGUMENTS[name])(self._guarded(name))
                address = ctypes.addressof(table) + getattr(fuse.fuse_operations, name).offset
                _POINTER.from_address(address).value = ctypes.cast(callback, _POINTER).value
                self._callbacks.append(callback)
            elif hasattr(prototype, "argtypes"):
                callback = prototype(functools.partial(self._wrapper, getattr(self, name)))
                setattr(table, name, callback)
                self._callbacks.append(callback)
            else:
                setattr(table, name, getattr(self.operations, theirs))
        return table

    def _guarded(self, name: str) -> Callable[..., int]:
        call: Callable[..., int] = getattr(self, "_" + name)

        def run(*args: Any) -> int:
            try:
                return call(*args)
            except Exception as e:
                return self._failed(name, e)

        return run

    def _failed(self, name: str, error: Exception) -> int:
        """The errno to answer, negative. What a user should hear of is logged."""
        if isinstance(error, errors.NotFound):
            return -errno.ENOENT
        if isinstance(error, errors.MountError):
            log.log(logging.WARNING if isinstance(error, errors.TimedOut) else logging.INFO, "%s: %s", name, error)
            return -self._errno_of(error)
        if isinstance(error, OSError):
            return -(error.errno or errno.EIO)
        log.error("%s failed", name, exc_info=error)
        return -errno.EIO

    # --- callbacks: paths are bytes, `fi` and buffers are addresses -------------------------------------------------

    def _getattr(self, path: bytes, buffer: int) -> int:
        here, text = self._nodes.here, _text(path)
        if here.asked is not None:
            self._nodes.learn(path)
        if here.found is not None and here.found[0] == path:
            return self._fill(buffer, text, here.found[1])
        found = self._vfs.find(text)
        if found is None:
            self._nodes.missing = True
            return -errno.ENOENT
        return self._fill(buffer, text, found)

    def _fgetattr(self, path: bytes | None, buffer: int, fi: int) -> int:
        return self._fill(buffer, *self._vfs.stat_handle(_handle(fi)))

    def _fill(self, buffer: int, path: str, found: Attr) -> int:
        is_dir, size, mtime, writable = found
        if is_dir:
            mode, links = stat.S_IFDIR | (0o755 if writable else 0o555), 2
        else:
            mode, links = stat.S_IFREG | (0o644 if writable else 0o444), 1
        user, group = self._identity
        blocks, (s, ns) = (size + 511) // 512, divmod(mtime, 1_000_000_000)
        inode, there = self._vfs.inode(path), _STAT_BYTES.from_address(buffer)
        _STAT.pack_into(there, 0, 0, inode, links, mode, user, group, 0, 0, size, 131072, blocks, s, ns, s, ns, s, ns)
        return 0

    def _create(self, path: bytes, mode: int, fi: int) -> int:
        append = _INT.from_address(fi).value & os.O_APPEND
        _NUMBER.from_address(fi + _HANDLE_AT).value = self._vfs.create(_text(path), bool(append))
        return 0

    def _open(self, path: bytes, fi: int) -> int:
        file = fuse.fuse_file_info.from_address(fi)
        flags = file.flags
        write = flags & os.O_ACCMODE != os.O_RDONLY
        try:
            number, keep, direct = self._vfs.open(
                _text(path), write, bool(flags & os.O_APPEND), bool(flags & os.O_TRUNC)
            )
        except errors.NotFound:
            return -errno.ESTALE  # it was there when the kernel looked: it looks again now, and may make it
        file.fh, file.keep_cache, file.direct_io = number, keep, direct
        return 0

    def _release(self, path: bytes | None, fi: int) -> int:
        self._vfs.close(_handle(fi))
        return 0

    # --- requests that are answered without libfuse -----------------------------------------------------------------

    def _look(self, node: int, name: bytes) -> int:
        """The errno for a name that is not there, negative; 0: libfuse has to be asked."""
        nodes = self._nodes
        directory = nodes.path(node)
        if directory is None:
            nodes.here.asked = (node, name)
            return 0
        path = directory + name
        status = -errno.ENOENT
        try:
            found = self._vfs.find(_text(path))
            if found is not None:
                nodes.missing = False
                nodes.here.found = (path, found)
                return 0
        except Exception as e:
            status = self._failed("getattr", e)
        return status if nodes.path(node) is directory else 0

    def _read(self, request: memoryview) -> Piece:
        handle, offset, size = _OPENED.unpack_from(request, _REQUEST.size)
        return self._vfs.handle(handle).read(offset, size)

    def _write(self, request: memoryview) -> Piece:
        handle, offset, size = _OPENED.unpack_from(request, _REQUEST.size)
        return _WRITTEN.pack(self._vfs.handle(handle).write(offset, request[_DATA_AT : _DATA_AT + size]), 0)

    def _flush(self, request: memoryview) -> Piece:
        handle, _, _ = _OPENED.unpack_from(request, _REQUEST.size)
        self._vfs.handle(handle).flush()
        return b""

    def _closed(self, request: memoryview) -> Piece:
        # libfuse counts how often a file is open to hide what is removed meanwhile; with hard_remove it never asks
        self._vfs.close(_OPENED.unpack_from(request, _REQUEST.size)[0])
        return b""


_HANDLE_AT = fuse.fuse_file_info.fh.offset


def _handle(fi: int) -> int:
    number: int = _NUMBER.from_address(fi + _HANDLE_AT).value
    return number


def _text(path: bytes) -> str:
    """Text of a path. What is no UTF-8 becomes characters that are legal nowhere."""
    return path.decode("utf-8", "surrogateescape")
