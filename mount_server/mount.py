"""One mount: a commit's tree, and over it what is staged. Says what paths look like and takes changes."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mount_server.disk import disk
from mount_server.errors import (
    AlreadyExists,
    CrossMount,
    IsADirectory,
    MountError,
    NotADirectory,
    NotEmpty,
    NotFound,
    ReadOnly,
)
from mount_server.handles import Handle, StagedReader, WriteFile
from mount_server.journal import INLINE_LIMIT, Journal, MountRow, Staged
from mount_server.listing import CommitTree, split
from mount_server.names import check_name, check_path
from mount_server.reader import Contents
from mount_server.source import CommitRef, Difference, Entry

LIVE = ("file", "copy", "dir")


class Attr(NamedTuple):
    """What stat says: bytes, and nanoseconds."""

    is_dir: bool
    size: int
    mtime: int
    writable: bool


class Dirty(NamedTuple):
    """What the next commit would hold."""

    files: int
    deletes: int
    bytes: int


class Mount:
    """A mounted branch or commit. Paths are inside the repo, `a/b/c`; "" is the mount's own directory.

    :param row: what it is a mount of; an empty `commit` means that it follows its branch.
    :param tree: what its head looks like.
    """

    def __init__(self, row: MountRow, tree: CommitTree, journal: Journal, contents: Contents) -> None:
        self.row, self.tree = row, tree
        self.journal, self._contents = journal, contents
        self.lock = threading.RLock()
        self.commit_lock = threading.Lock()
        self.writing: dict[str, WriteFile] = {}
        self.pinned_blobs: set[str] = set()
        self.conflicts: dict[str, str] = {}
        self.last_error, self.last_commit = "", ""
        self.latest = row.head
        self.behind = 0
        self.retired = False
        self.staged: dict[str, Staged] = {}
        self._by_directory: dict[str, dict[str, Staged]] = {}
        self._implied: dict[str, int] = {}
        self._unjournaled: set[str] = set()
        for path, staged in journal.load(row.name).items():
            self._set(path, staged)

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether it is a rw mount."""
        return self.row.mode == "rw"

    def now(self) -> int:
        """Nanoseconds; one seam for the clock."""
        return time.time_ns()

    def stat(self, path: str) -> Attr:
        """What a path is. :raises NotFound, NotADirectory: it is not there, or a part of it is a file."""
        found = self.lookup(path)
        if found is None:
            raise NotFound(f"no such file: {self.row.name}/{path}")
        if isinstance(found, Staged):
            if found.kind == "dir":
                return Attr(True, 0, found.mtime, True)
            writer = self.writing.get(path)
            if writer is not None:
                return Attr(False, writer.size, writer.mtime, True)
            return Attr(False, found.size, found.mtime, True)
        writable = self.writable and self.in_scope(path)
        return Attr(found.is_dir, 0 if found.is_dir else found.size, found.mtime or self.tree.mtime, writable)

    def lookup(self, path: str) -> Staged | Entry | None:
        """The staged or committed thing at a path; None: nothing."""
        if not path:
            return self.tree.root
        if not self._visible(path):
            return None
        if self.staged:
            staged = self.staged.get(path)
            if staged is not None and staged.kind in LIVE:
                return staged
            if path in self._implied:
                return self.tree.root
            if staged is not None and staged.kind == "deleted":
                return None
            parent = split(path)[0]
            above = self.staged.get(parent)
            if above is not None and above.kind in ("file", "copy"):
                raise NotADirectory(f"{self.row.name}/{parent} is a file")
            while parent:
                if above is not None and (above.kind == "deleted" or (above.kind == "dir" and above.hash)):
                    return None  # a directory, or nothing, where the commit has a file
                parent = split(parent)[0]
                above = self.staged.get(parent)
            if staged is not None and staged.kind == "rmdir" and self._still_empty(path, staged):
                return None
        entry = self.tree.find(path)
        if entry is not None and not entry.is_dir and self.row.path and not self.in_scope(path):
            return None
        return entry

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted. :raises NotFound, NotADirectory: it is not there, or not a directory."""
        if path and self.row.path and not self.in_scope(path) and self._visible(path):
            return [self.row.path[len(path) + 1 :].split("/")[0]]
        if not path and self.row.path:
            name = self.row.path.split("/")[0]
            return [name] if self.lookup(name) is not None else []
        staged = self._by_directory.get(path) if self.staged else None
        try:
            listing = self._base_list(path)
        except (NotFound, NotADirectory):
            found = self.lookup(path)
            if found is None:
                raise NotFound(f"no such directory: {self.row.name}/{path}") from None
            if isinstance(found, Staged) and found.kind != "dir":
                raise NotADirectory(f"{self.row.name}/{path} is a file") from None
            if isinstance(found, Entry) and not found.is_dir:
                raise NotADirectory(f"{self.row.name}/{path} is a file") from None
            listing = {}
        if not staged and not self.staged:
            return list(listing)
        with self.lock:
            names = set(listing)
            prefix = path + "/" if path else ""
            for name, change in (staged or {}).items():
                if change.kind in LIVE:
                    names.add(name)
                elif change.kind == "deleted" or self._still_empty(prefix + name, change):
                    names.discard(name)
            for directory in self._implied:
                if directory.startswith(prefix) and directory != path and "/" not in directory[len(prefix) :]:
                    names.add(directory[len(prefix) :])
        return sorted(names)

    def in_scope(self, path: str) -> bool:
        """Whether a path lies in the part of the repo that is mounted."""
        scope = self.row.path
        return not scope or path == scope or path.startswith(scope + "/")

    def _visible(self, path: str) -> bool:
        return self.in_scope(path) or self.row.path.startswith(path + "/")

    def _base_list(self, path: str) -> dict[str, Entry]:
        staged = self.staged.get(path) if self.staged else None
        if staged is not None and (staged.kind in ("file", "copy") or staged.hash):
            raise NotADirectory(f"{self.row.name}/{path} is a file")
        return self.tree.list(path)

    def _still_empty(self, path: str, staged: Staged) -> bool:
        """Whether a committed directory that was removed here is still without files nobody removed here."""
        if staged.source.id == self.tree.id:
            return True
        try:
            listing = self.tree.list(path)
        except (NotFound, NotADirectory):
            listing = {}
        for name, entry in listing.items():
            child = self.staged.get(f"{path}/{name}")
            if child is None or (child.kind == "rmdir" and not self._still_empty(f"{path}/{name}", child)):
                return False
            if child.kind == "deleted" and entry.is_dir:
                return False
        if path in self.staged:
            self.staged[path] = staged._replace(source=CommitRef("", "", self.tree.id))
        return True

    # --- files ------------------------------------------------------------------------------------------------------

    def open(self, path: str, write: bool = False, append: bool = False) -> Handle:
        """Open a file that exists. :raises IsADirectory, NotFound, ReadOnly: it cannot be."""
        if write:
            self.check_writable(path)
        found = self.lookup(path)
        if found is None:
            raise NotFound(f"no such file: {self.row.name}/{path}")
        handle = Handle(self, path, append)
        handle.writable = write
        if isinstance(found, Staged):
            if found.kind == "dir":
                raise IsADirectory(f"{self.row.name}/{path} is a directory")
            with self.lock:
                if write and path in self.writing:
                    handle.writer = self.writer(path)
                elif found.kind == "copy":
                    handle.reader = self._contents.open(None, found.source, found.source_path, found.size, found.hash)
                else:
                    handle.reader = StagedReader(self, path, found)
            return handle
        if found.is_dir or self.tree.ref is None:
            raise IsADirectory(f"{self.row.name}/{path} is a directory")
        handle.reader = self._contents.open(self.tree, self.tree.ref, path, found.size, found.hash)
        handle.identity = found.hash + found.size.to_bytes(8, "big")
        return handle

    def create(self, path: str, append: bool = False) -> Handle:
        """Make an empty file and open it. It is staged when it is closed or synced."""
        self.check_writable(path)
        check_path(path)
        with self.lock:
            if self.lookup(path) is not None:
                raise AlreadyExists(f"{self.row.name}/{path} exists")
            self._check_parent(path)
            writer = WriteFile(self, path)
            writer.dirty = True
            writer.handles = 1
            self._set(path, writer.staged())
            self._unjournaled.add(path)
            self.writing[path] = writer
        handle = Handle(self, path, append)
        handle.writable, handle.writer = True, writer
        return handle

    def truncate(self, path: str, size: int) -> None:
        """Set a file's size; staged at once."""
        handle = self.open(path, write=True)
        try:
            handle.truncate(size)
        finally:
            handle.close()

    def writer(self, path: str) -> WriteFile:
        """The writer of a path, made if nobody writes it yet; give it back with `release_writer`."""
        with self.lock:
            writer = self.writing.get(path)
            if writer is None:
                found = self.lookup(path)
                if found is None:
                    raise NotFound(f"{self.row.name}/{path} was removed")
                if isinstance(found, Staged) and found.kind == "file":
                    writer = WriteFile.of(self, path, found)
                else:
                    writer = WriteFile(self, path)
                    with_source = found.source if isinstance(found, Staged) else self.tree.ref
                    from_path = found.source_path if isinstance(found, Staged) else path
                    assert with_source is not None
                    reader = self._contents.open(None, with_source, from_path, found.size, found.hash)
                    try:
                        writer.load(reader)
                    finally:
                        reader.close()
                    self._set(path, writer.staged())
                    self._unjournaled.add(path)
                self.writing[path] = writer
            writer.handles += 1
            return writer

    def stage_writer(self, writer: WriteFile, sync: bool = False) -> None:
        """Note what a writer holds in the journal."""
        with self.lock:
            if writer.dirty and not writer.gone:
                staged = writer.staged()
                self.journal.put(self.row.name, [(writer.path, staged)])
                self._set(writer.path, staged)
                self._unjournaled.discard(writer.path)
                writer.dirty = False
        if sync:
            self.journal.sync()

    def release_writer(self, writer: WriteFile) -> None:
        """End one use of a writer."""
        with self.lock:
            writer.handles -= 1
            if writer.handles == 0:
                writer.close()
                if self.writing.get(writer.path) is writer:
                    del self.writing[writer.path]
                if writer.dirty and not writer.gone:
                    self._give_up(writer)

    def _give_up(self, writer: WriteFile) -> None:
        """The disk did not take a file when it was closed: show what the journal has of it, as after a restart."""
        noted = self.journal.find(self.row.name, writer.path)
        if writer.blob and (noted is None or noted.blob != writer.blob):
            self.journal.drop_blob(writer.blob)
        self._unset(writer.path)
        if noted is not None:
            self._set(writer.path, noted)

    def touch(self, path: str, mtime: int) -> None:
        """Set a staged file's time. A committed file keeps its commit's."""
        self.check_writable(path)
        with self.lock:
            writer = self.writing.get(path)
            if writer is not None:
                writer.mtime = mtime
            staged = self.staged.get(path)
            if staged is not None and staged.kind in ("file", "copy") and path not in self._unjournaled:
                self._stage([(path, staged._replace(mtime=mtime))])
            elif self.lookup(path) is None:
                raise NotFound(f"no such file: {self.row.name}/{path}")

    # --- names ------------------------------------------------------------------------------------------------------

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self.check_writable(path)
        with self.lock:
            found = self.lookup(path)
            if found is None:
                raise NotFound(f"no such file: {self.row.name}/{path}")
            if (isinstance(found, Staged) and found.kind == "dir") or (isinstance(found, Entry) and found.is_dir):
                raise IsADirectory(f"{self.row.name}/{path} is a directory")
            self._keep_parent(path, self._remove([path]))

    def mkdir(self, path: str) -> None:
        """Make a directory. It is local until a file in it is committed."""
        self.check_writable(path)
        check_path(path)
        with self.lock:
            if self.lookup(path) is not None:
                raise AlreadyExists(f"{self.row.name}/{path} exists")
            self._check_parent(path)
            over_file = b"f" if self._base_file(path) is not None else b""
            self._stage([(path, Staged("dir", self.journal.next_seq(), 0, self.now(), hash=over_file))])

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self.check_writable(path)
        with self.lock:
            if self.names(path):
                raise NotEmpty(f"{self.row.name}/{path} is not empty")
            if not path or not self.in_scope(path):
                raise ReadOnly(f"{self.row.name}/{path} belongs to the mount; unmount it instead")
            staged = self.staged.get(path)
            if staged is not None and staged.hash:
                self._stage([(path, staged._replace(kind="deleted", seq=self.journal.next_seq(), hash=b""))])
            elif self.tree.find(path) is not None:
                gone = Staged("rmdir", self.journal.next_seq(), 0, self.now(), source=CommitRef("", "", self.tree.id))
                self._stage([(path, gone)])
            else:
                self._stage([], [path])
            self._keep_parent(path, [])

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name in the same mount; what has the new name is replaced."""
        self.check_writable(old)
        self.check_writable(new)
        check_path(new)
        if old == new:
            return
        if new.startswith(old + "/"):
            raise CrossMount(f"{self.row.name}/{old} cannot be moved into itself")
        with self.lock:
            source, target = self.lookup(old), self.lookup(new)
            if source is None:
                raise NotFound(f"no such file: {self.row.name}/{old}")
            self._check_parent(new)
            is_dir = source.kind == "dir" if isinstance(source, Staged) else source.is_dir
            if target is not None:
                target_is_dir = target.kind == "dir" if isinstance(target, Staged) else target.is_dir
                if is_dir and not target_is_dir:
                    raise NotADirectory(f"{self.row.name}/{new} is a file")
                if target_is_dir and not is_dir:
                    raise IsADirectory(f"{self.row.name}/{new} is a directory")
                if target_is_dir and self.names(new):
                    raise NotEmpty(f"{self.row.name}/{new} is not empty")
            pairs = [(old, new)]
            if is_dir:
                pairs += [(path, new + path[len(old) :]) for path in self._descendants(old)]
            self._rename(pairs)

    def _rename(self, pairs: list[tuple[str, str]]) -> None:
        puts: list[tuple[str, Staged]] = []
        writers: list[tuple[WriteFile, str]] = []
        for old, new in pairs:
            writer, found = self.writing.get(old), self.lookup(old)
            seq = self.journal.next_seq()
            if writer is not None:
                writers.append((writer, new))
                puts.append((new, writer.staged()))
            elif isinstance(found, Staged):
                over = b"f" if found.kind == "dir" and self._base_file(new) is not None else found.hash
                puts.append((new, found._replace(seq=seq, hash=b"" if found.kind == "dir" and over != b"f" else over)))
            elif found is not None and found.is_dir:
                over = b"f" if self._base_file(new) is not None else b""
                puts.append((new, Staged("dir", seq, 0, self.now(), hash=over)))
            elif found is not None and self.tree.ref is not None:
                puts.append(
                    (
                        new,
                        Staged(
                            "copy", seq, found.size, found.mtime, source=self.tree.ref, source_path=old, hash=found.hash
                        ),
                    )
                )
        gone, forget = self._removal([old for old, _ in pairs])
        # one transaction: a crash leaves either the old names or the new ones
        self._stage(puts + gone, forget)
        for writer, new in writers:
            self.writing.pop(writer.path, None)
            replaced = self.writing.get(new)
            if replaced is not None:
                replaced.gone = True
            writer.path = new
            self.writing[new] = writer
        self._keep_parent(pairs[0][0], [])

    def _descendants(self, path: str) -> Iterator[str]:
        for name in self.names(path):
            child = f"{path}/{name}"
            yield child
            found = self.lookup(child)
            if found is not None and (found.kind == "dir" if isinstance(found, Staged) else found.is_dir):
                yield from self._descendants(child)

    # --- staging ----------------------------------------------------------------------------------------------------

    def stage(self, files: Iterable[tuple[str, bytes | None]]) -> tuple[int, int]:
        """Stage many whole files (None: delete) durably in one go, without asking pachd anything.

        :return: how many were staged and how many deleted.
        :raises IllegalName, ReadOnly, NoSpace: nothing was staged then.
        """
        checked: dict[str, bytes | None] = {}
        for path, data in files:
            checked[check_path(path)] = data
        for path in checked:
            self.check_writable(path)
        with self.lock:
            blobs: list[str] = []
            try:
                self._stage(self._staged_files(checked, blobs))
            except BaseException:
                for blob in blobs:
                    self.journal.drop_blob(blob)
                raise
            for path in checked:
                writer = self.writing.pop(path, None)
                if writer is not None:
                    writer.gone = True
        self.journal.sync()
        deleted = sum(data is None for data in checked.values())
        return len(checked) - deleted, deleted

    def _staged_files(self, files: dict[str, bytes | None], blobs: list[str]) -> list[tuple[str, Staged]]:
        """What to note for whole files; the names of content files written for it go to `blobs`."""
        puts: list[tuple[str, Staged]] = []
        now = self.now()
        for path, data in files.items():
            seq = self.journal.next_seq()
            directory = split(path)[0]
            while directory:
                staged = self.staged.get(directory)
                if (staged is not None and staged.kind in ("file", "copy")) or files.get(directory) is not None:
                    raise NotADirectory(f"/{path} cannot be staged: /{directory} is a file")
                directory = split(directory)[0]
            if data is None:
                puts.append((path, Staged("deleted", seq, 0, now)))
            elif path in self._implied:
                raise IsADirectory(f"/{path} cannot be staged as a file: it is a directory")
            elif len(data) > INLINE_LIMIT:
                blob = self.journal.new_blob()
                blobs.append(blob)
                with disk(f"/{path}"):
                    (self.journal.blobs / blob).write_bytes(data)
                puts.append((path, Staged("file", seq, len(data), now, None, blob)))
            else:
                puts.append((path, Staged("file", seq, len(data), now, data)))
        return puts

    def dirty(self) -> Dirty:
        """What the next commit would hold, as far as is known without asking pachd."""
        files = deletes = size = 0
        with self.lock:
            for staged in self.staged.values():
                if staged.kind in ("file", "copy"):
                    files += 1
                    size += staged.size
                elif staged.kind == "deleted" or (staged.kind == "dir" and staged.hash):
                    deletes += 1
        return Dirty(files, deletes, size)

    def snapshot(self) -> dict[str, Staged]:
        """What a commit that starts now holds; what is written from now on is the next commit's."""
        with self.lock:
            for writer in list(self.writing.values()):
                if writer.dirty and writer.path not in self._unjournaled:
                    self.stage_writer(writer)
            taken = {path: staged for path, staged in self.staged.items() if path not in self._unjournaled}
            self.pinned_blobs = {staged.blob for staged in taken.values() if staged.blob}
        return taken

    def settle(self, done: dict[str, Staged], tree: CommitTree | None) -> None:
        """Forget what pachd has now, and move on to the new commit in the same moment."""
        with self.lock:
            for path, staged in done.items():
                current = self.staged.get(path)
                if current is not None and current.seq == staged.seq:
                    self._unset(path)
                    if staged.blob and path not in self.writing:
                        (self.journal.blobs / staged.blob).unlink(missing_ok=True)
                    # a writer that is still open stages its file again when it changes it
            self.pinned_blobs = set()
            if tree is not None:
                self.move(tree, None)

    def move(self, tree: CommitTree, changes: Iterable[Difference] | None) -> None:
        """Show another commit. Staged files win over incoming changes of the same path, which become conflicts."""
        with self.lock:
            if changes is not None:
                for change in changes:
                    if change.path in self.staged and self.staged[change.path].kind != "dir":
                        self.conflicts[change.path] = change.op
            self.conflicts = {path: op for path, op in self.conflicts.items() if path in self.staged}
            self.tree = tree
            self.row = self.row._replace(head=tree.id, head_time=tree.mtime)
            self.latest = tree.id

    def check_writable(self, path: str) -> None:
        """:raises ReadOnly: changes are not possible here. :raises MountError: it was unmounted."""
        if self.retired:
            raise MountError(f"mount {self.row.name!r} was unmounted: what is written to its open files is not kept")
        if not self.writable:
            raise ReadOnly(f"mount {self.row.name!r} is read-only; mount it with mode rw to change files")
        if not self.in_scope(path):
            raise ReadOnly(f"/{path} is outside /{self.row.path}, which is all that mount {self.row.name!r} holds")

    def _check_parent(self, path: str) -> None:
        directory, name = split(path)
        check_name(name)
        found = self.lookup(directory)
        if found is None:
            raise NotFound(f"no such directory: {self.row.name}/{directory}")
        if not (found.kind == "dir" if isinstance(found, Staged) else found.is_dir):
            raise NotADirectory(f"{self.row.name}/{directory} is a file")

    def _base_file(self, path: str) -> Entry | None:
        try:
            entry = self.tree.find(path)
        except NotADirectory:
            return None
        return entry if entry is not None and not entry.is_dir else None

    def _remove(self, paths: list[str]) -> list[tuple[str, Staged]]:
        gone, forget = self._removal(paths)
        self._stage(gone, forget)
        for path in paths:
            writer = self.writing.pop(path, None)
            if writer is not None:
                writer.gone = True
        return gone

    def _removal(self, paths: list[str]) -> tuple[list[tuple[str, Staged]], list[str]]:
        """Which changes to note, and which to forget, so that these paths are gone."""
        gone: list[tuple[str, Staged]] = []
        forget: list[str] = []
        for path in paths:
            try:
                entry = self.tree.find(path)
            except NotADirectory:
                entry = None
            seq = self.journal.next_seq()
            staged = self.staged.get(path)
            if entry is None:
                forget.append(path)
                if path in self.pinned_paths():
                    # a running commit is writing it: the next one has to remove it
                    gone.append((path, Staged("deleted", seq, 0, self.now())))
                    forget.pop()
            elif entry.is_dir and not (staged is not None and staged.kind in ("file", "copy")):
                gone.append((path, Staged("rmdir", seq, 0, self.now(), source=CommitRef("", "", self.tree.id))))
            elif entry.is_dir:
                gone.append((path, Staged("rmdir", seq, 0, self.now(), source=CommitRef("", "", self.tree.id))))
            else:
                gone.append((path, Staged("deleted", seq, 0, self.now())))
        return gone, forget

    in_commit: frozenset[str] = frozenset()

    def pinned_paths(self) -> frozenset[str]:
        """The paths that a running commit is writing."""
        return self.in_commit

    def _keep_parent(self, path: str, _: object) -> None:
        """A directory stays when its last file goes, until it is removed itself."""
        directory = split(path)[0]
        if directory and directory not in self.staged and self.in_scope(directory):
            try:
                base = self.tree.find(directory)
            except NotADirectory:
                base = None
            if base is None and directory not in self._implied:
                self._stage([(directory, Staged("dir", self.journal.next_seq(), 0, self.now()))])

    def _stage(self, puts: list[tuple[str, Staged]], forget: Iterable[str] = ()) -> None:
        forget = list(forget)
        self.journal.put(self.row.name, puts, forget)
        for path in forget:
            self._unset(path)
        for path, staged in puts:
            self._set(path, staged)
            self._unjournaled.discard(path)

    def _set(self, path: str, staged: Staged) -> None:
        self._unset(path)
        directory, name = split(path)
        self.staged[path] = staged
        self._by_directory.setdefault(directory, {})[name] = staged
        if staged.kind in LIVE:
            while directory:
                self._implied[directory] = self._implied.get(directory, 0) + 1
                directory = split(directory)[0]

    def _unset(self, path: str) -> None:
        staged = self.staged.pop(path, None)
        self._unjournaled.discard(path)
        if staged is None:
            return
        directory, name = split(path)
        names = self._by_directory[directory]
        del names[name]
        if not names:
            del self._by_directory[directory]
        if staged.kind in LIVE:
            while directory:
                self._implied[directory] -= 1
                if not self._implied[directory]:
                    del self._implied[directory]
                directory = split(directory)[0]
