"""The whole mount directory in plain Python: one directory per mount, below it what `mount.Mount` says.

Paths are `/mount/a/b`. Domain exceptions come out; no errno, no FUSE.
"""

import hashlib
import os
import threading
import time

from mount_server.errors import CrossMount, IsADirectory, NotADirectory, NotFound, ReadOnly
from mount_server.handles import Handle
from mount_server.manager import Mounts
from mount_server.mount import Mount
from mount_server.overlay import Attr


class Vfs:
    """The file system that all mounts make together."""

    def __init__(self, mounts: Mounts) -> None:
        self.mounts = mounts
        self._handles: dict[int, Handle] = {}
        self._next = 1
        self._lock = threading.Lock()
        self._identities: dict[str, tuple[bytes | None, int]] = {}

    def stat(self, path: str) -> Attr:
        """What a path is."""
        found = self.find(path)
        if found is None:
            raise NotFound(f"no such file: {path[1:]}")
        return found

    def find(self, path: str) -> Attr | None:
        """What a path is; None: nothing."""
        if path == "/":
            return Attr(True, 0, self.mounts.started, False)
        name, _, inner = path[1:].partition("/")
        mount = self.mounts.find(name)
        if mount is None:
            return None
        mount.used = time.monotonic()
        if not inner:
            return Attr(True, 0, mount.tree.mtime, mount.writable)
        return mount.find(inner)

    def inode(self, path: str) -> int:
        """A number that is the path's own, the same at every look and after every start."""
        return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big") >> 1 or 1

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        if path == "/":
            return [mount.row.name for mount in self.mounts.all()]
        mount, inner = self._split(path)
        return mount.names(inner)

    def open(self, path: str, write: bool, append: bool, truncate: bool) -> tuple[int, bool, bool]:
        """Open a file.

        :return: the handle's number; whether the kernel may keep the pages it has of this path; and whether it must not
            cache at all, because another handle sees other content under the same name.
        """
        mount, inner = self._file(path)
        handle = mount.open(inner, write or truncate, append)
        if truncate:
            handle.truncate(0)
        with self._lock:
            before, uses = self._identities.get(path, (None, 0))
            same = before is not None and before == handle.identity
            direct = bool(uses) and not same and (before is not None or handle.identity is not None)
            if not direct:
                self._identities[path] = (handle.identity, uses + 1)
            if len(self._identities) > 200_000:
                self._identities = {p: i for p, i in self._identities.items() if i[1]}
        return self._add(handle, "" if direct else path), same, direct

    def create(self, path: str, append: bool) -> int:
        """Make an empty file and open it for writing."""
        mount, inner = self._file(path)
        handle = mount.create(inner, append)
        handle.opened_as = path
        with self._lock:
            opened = self._identities.get(path)
            self._identities[path] = (None, 1 if opened is None else opened[1] + 1)
            number = self._next
            self._next += 1
            self._handles[number] = handle
        return number

    def handle(self, number: int) -> Handle:
        """An open file."""
        return self._handles[number]

    def close(self, number: int) -> None:
        """Close an open file."""
        with self._lock:
            handle = self._handles.pop(number)
            opened = handle.opened_as
            if opened:
                identity, uses = self._identities.get(opened, (None, 1))
                if identity is None and uses <= 1:  # as if it had never been opened
                    self._identities.pop(opened, None)
                else:
                    self._identities[opened] = (identity, max(0, uses - 1))
        handle.close()

    def stat_handle(self, number: int) -> tuple[str, Attr]:
        """Path and state of an open file, which may have been renamed or removed."""
        handle = self._handles[number]
        writer = handle.writer
        if writer is not None:
            return f"/{handle.mount.row.name}/{writer.path}", Attr(False, writer.size, writer.mtime, True)
        path = f"/{handle.mount.row.name}/{handle.path}"
        try:
            return path, handle.mount.stat(handle.path)
        except (NotFound, NotADirectory):
            size = getattr(handle.reader, "size", 0)
            return path, Attr(False, size, handle.mount.tree.mtime, handle.writable)

    def truncate(self, path: str, size: int) -> None:
        """Set a file's size."""
        mount, inner = self._file(path)
        mount.truncate(inner, size)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        mount, inner = self._file(path)
        mount.unlink(inner)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        mount, inner = self._below(path)
        mount.mkdir(inner)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        mount, inner = self._below(path)
        mount.rmdir(inner)

    def rename(self, old: str, new: str) -> None:
        """Rename inside one mount. :raises CrossMount: from one to another; the caller has to copy."""
        mount, inner = self._below(old)
        target, target_inner = self._below(new)
        if mount is not target:
            raise CrossMount(f"{old} and {new} are in different mounts")
        mount.rename(inner, target_inner)

    def link(self, old: str, new: str) -> None:
        """Hard links become copies: PFS has none."""
        mount, inner = self._file(old)
        target, target_inner = self._file(new)
        if mount is not target:
            raise CrossMount(f"{old} and {new} are in different mounts")
        source = mount.open(inner)
        try:
            copy = mount.create(target_inner)
            try:
                offset = 0
                while data := source.read(offset, 1 << 20):
                    offset += copy.write(offset, data)
            finally:
                copy.close()
        finally:
            source.close()

    def touch(self, path: str, mtime: int) -> None:
        """Set a time, in nanoseconds."""
        if path == "/":
            raise ReadOnly("the mount directory itself does not change")
        mount, inner = self._split(path)
        mount.check_writable(inner or mount.row.path)
        if inner and not mount.stat(inner).is_dir:
            mount.touch(inner, mtime)

    def check_writable(self, path: str) -> None:
        """:raises ReadOnly: mode and owner cannot be set here; elsewhere it has no effect, PFS keeps none."""
        if path == "/":
            raise ReadOnly("the mount directory itself does not change")
        mount, inner = self._split(path)
        mount.check_writable(inner or mount.row.path)
        if inner:
            mount.stat(inner)

    def space(self) -> tuple[int, int, int]:
        """Block size, blocks, and free blocks of the disk that staged files go to."""
        found = os.statvfs(self.mounts.journal.blobs)
        return found.f_frsize, found.f_blocks, found.f_bavail

    def _add(self, handle: Handle, opened_as: str) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            handle.opened_as = opened_as
            self._handles[number] = handle
        return number

    def _split(self, path: str) -> tuple[Mount, str]:
        name, _, inner = path[1:].partition("/")
        return self._mount(name), inner

    def _below(self, path: str) -> tuple[Mount, str]:
        name, slash, inner = path[1:].partition("/")
        if not slash:
            raise ReadOnly("mounts are made and removed with PUT /_mount and /_unmount")
        return self._mount(name), inner

    def _file(self, path: str) -> tuple[Mount, str]:
        name, slash, inner = path[1:].partition("/")
        if not slash:
            if self.mounts.find(name) is not None:
                raise IsADirectory(f"{path} is a mount")
            raise ReadOnly("files are made inside of mounts")
        return self._mount(name), inner

    def _mount(self, name: str) -> Mount:
        mount = self.mounts.find(name)
        if mount is None:
            raise NotFound(f"no mount {name!r}")
        mount.used = time.monotonic()
        return mount
