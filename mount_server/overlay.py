"""What a mount looks like: a commit's tree, and over it what is staged."""

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from mount_server.errors import MountError, NotADirectory, NotFound, ReadOnly
from mount_server.handles import WriteFile
from mount_server.journal import INLINE_BUDGET, INLINE_LEAST, INLINE_LIMIT, Journal, MountRow, Staged
from mount_server.listing import CommitTree, split
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


class Overlay:
    """A commit's tree with staged changes over it. Paths are inside the repo, `a/b/c`; "" is the mount's own directory.

    :param row: what it is a mount of; an empty `commit` means that it follows its branch, lines of `path` are several.
    :param tree: what its head looks like.
    """

    in_commit: frozenset[str] = frozenset()

    def __init__(self, row: MountRow, tree: CommitTree, journal: Journal) -> None:
        self.row, self.tree = row, tree
        self.journal = journal
        self.lock = threading.RLock()
        self.commit_lock = threading.Lock()
        self.writing: dict[str, WriteFile] = {}
        self.pinned_blobs: set[str] = set()
        self.conflicts: dict[str, str] = {}
        self.last_error, self.last_commit = "", ""
        self.latest = row.head
        self.behind = 0
        self.retired = False
        self.temporary = False
        self.shown_path = "/" + row.path if row.path else ""  # as clients are told
        self.used = time.monotonic()
        self._scopes = tuple(row.path.split("\n")) if row.path else ()
        self.staged: dict[str, Staged] = {}
        self._in_memory = 0
        self._by_directory: dict[str, dict[str, Staged]] = {}
        self._implied: dict[str, int] = {}
        self._unjournaled: set[str] = set()
        for path, staged in journal.load(row.name).items():
            self._set(path, staged)

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether it is a rw mount."""
        return self.row.mode == "rw"

    def now(self) -> int:
        """Nanoseconds; one seam for the clock."""
        return time.time_ns()

    def stat(self, path: str) -> Attr:
        """What a path is. :raises NotFound, NotADirectory: it is not there, or a part of it is a file."""
        found = self.find(path)
        if found is None:
            raise NotFound(f"no such file: {self.row.name}/{path}")
        return found

    def find(self, path: str) -> Attr | None:
        """What a path is; None: nothing. :raises NotADirectory: a part of it is a file."""
        found = self.lookup(path)
        if found is None:
            return None
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
        if self._scopes and not self._visible(path):
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
        if entry is not None and not entry.is_dir and self._scopes and not self.in_scope(path):
            return None
        return entry

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted. :raises NotFound, NotADirectory: it is not there, or not a directory."""
        if self._scopes and not self.in_scope(path) and self._visible(path):
            prefix = path + "/" if path else ""
            names = {scope[len(prefix) :].split("/")[0] for scope in self._scopes if scope.startswith(prefix)}
            return sorted(name for name in names if self.lookup(prefix + name) is not None)
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
        if not self._scopes:
            return True
        return any(path == scope or path.startswith(scope + "/") for scope in self._scopes)

    def _visible(self, path: str) -> bool:
        if not self._scopes:
            return True
        return self.in_scope(path) or any(not path or scope.startswith(path + "/") for scope in self._scopes)

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

    def check_writable(self, path: str) -> None:
        """:raises ReadOnly: changes are not possible here. :raises MountError: it was unmounted."""
        if self.retired:
            raise MountError(f"mount {self.row.name!r} was unmounted: what is written to its open files is not kept")
        if not self.writable:
            raise ReadOnly(f"mount {self.row.name!r} is read-only; mount it with mode rw to change files")
        if not self.in_scope(path):
            raise ReadOnly(f"/{path} is outside {self.shown_path}, which is all that mount {self.row.name!r} holds")

    def _check_parent(self, path: str) -> None:
        directory, _ = split(path)
        if not directory:
            return
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

    def pinned_paths(self) -> frozenset[str]:
        """The paths that a running commit is writing."""
        return self.in_commit

    # --- changing -----------------------------------------------------------------------------------------------------

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

    def _stage(self, puts: list[tuple[str, Staged]], forget: Iterable[str] = ()) -> None:
        forget = list(forget)
        self.journal.put(self.row.name, puts, forget)
        for path in forget:
            self._unset(path)
        for path, staged in puts:
            self._set(path, staged)
            self._unjournaled.discard(path)

    def inline_limit(self, more: int = 0) -> int:
        """Bytes up to which a content is kept in memory when `more` bytes are about to be."""
        return INLINE_LIMIT if self._in_memory + more < INLINE_BUDGET else INLINE_LEAST

    def _set(self, path: str, staged: Staged) -> None:
        directory, name = split(path)
        before = self.staged.get(path)
        if before is not None:
            if before.kind in LIVE and staged.kind in LIVE:  # as with each file that is written and closed
                self._in_memory += len(staged.data or b"") - len(before.data or b"")
                self.staged[path] = self._by_directory[directory][name] = staged
                self._unjournaled.discard(path)
                return
            self._unset(path)
        self.staged[path] = staged
        self._in_memory += len(staged.data or b"")
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
        self._in_memory -= len(staged.data or b"")
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
