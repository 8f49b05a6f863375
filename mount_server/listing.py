"""The tree of one commit: directories are listed once and kept, a new commit takes over what has not changed."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from mount_server.errors import NotADirectory, NotFound
from mount_server.source import CommitRef, Difference, Entry, Source
from mount_server.waiting import about_to_wait

MAX_ENTRIES = 2_000_000  # per commit; about 250 bytes each


def split(path: str) -> tuple[str, str]:
    """Directory and name of a path inside a repo."""
    directory, _, name = path.rpartition("/")
    return directory, name


class CommitTree:
    """What a commit looks like as directories. `ref` None is the empty tree of a branch without a finished commit."""

    def __init__(self, source: Source, ref: CommitRef | None, mtime: int) -> None:
        self.ref, self.mtime = ref, mtime
        self.root = Entry(True, 0, b"", mtime)
        self._source = source
        self._listings: OrderedDict[str, dict[str, Entry]] = OrderedDict()
        self._absent: set[str] = set()
        self._count = 0
        self._lock = threading.Lock()
        if ref is None:
            self._listings[""] = {}

    @property
    def id(self) -> str:
        """The commit's ID, or ""."""
        return self.ref.id if self.ref else ""

    def list(self, directory: str) -> dict[str, Entry]:
        """The children of a directory by name. Not to be changed.

        :raises NotFound, NotADirectory, Unreachable: as `Source.children`.
        """
        listing = self._listings.get(directory)
        if listing is not None:
            return listing
        if directory in self._absent or self.ref is None:
            raise NotFound(f"no directory /{directory} in this commit")
        about_to_wait()
        with self._lock:
            listing = self._listings.get(directory)
            if listing is None:
                try:
                    listing = self._source.children(self.ref, directory)
                except NotFound:
                    if not directory:  # the root of an empty commit
                        listing = {}
                    else:
                        self._absent.add(directory)
                        raise
                self._keep(directory, listing)
        return listing

    def cached(self, directory: str) -> dict[str, Entry] | None:
        """A directory's children if they are known without asking."""
        return self._listings.get(directory)

    def find(self, path: str) -> Entry | None:
        """A file or directory, or None. :raises NotADirectory: a part of the path is a file."""
        if not path:
            return self.root
        directory, name = split(path)
        try:
            return self.list(directory).get(name)
        except NotFound:
            # f/x/y with a file f: say so, as a local file system does
            if directory and (parent := self.find(directory)) is not None and not parent.is_dir:
                raise NotADirectory(f"/{directory} is a file") from None
            return None

    def with_changes(self, ref: CommitRef, mtime: int, changes: Iterable[Difference] | None) -> "CommitTree":
        """The tree of another commit, given how it differs. None: unknown, nothing is taken over."""
        tree = CommitTree(self._source, ref, mtime)
        if changes is None:
            return tree
        with self._lock:
            tree._listings = OrderedDict(self._listings)
            tree._count = self._count
        touched: set[str] = set()
        for change in changes:
            tree._apply(change, touched)
        for directory in touched:
            if directory in tree._listings:
                tree._listings[directory] = dict(sorted(tree._listings[directory].items()))
        return tree

    def _apply(self, change: Difference, touched: set[str]) -> None:
        directory, name = split(change.path)
        while True:
            listing = self._listings.get(directory)
            if listing is not None and directory not in touched:
                listing = self._listings[directory] = dict(listing)
                touched.add(directory)
            if change.op == "deleted":
                if listing is None:
                    # whether the directory still exists is not known here
                    while directory:
                        directory, name = split(directory)
                        self._listings.pop(directory, None)
                        touched.discard(directory)
                    return
                listing.pop(name, None)
                if listing or not directory:
                    return
                self._listings.pop(directory)
                touched.discard(directory)
            else:
                if listing is not None:
                    if directory + "/" + name == change.path or (not directory and name == change.path):
                        listing[name] = Entry(False, change.size, change.hash, self.mtime)
                    elif name in listing and listing[name].is_dir:
                        return
                    else:
                        listing[name] = Entry(True, 0, b"", self.mtime)
                if not directory:
                    return
            directory, name = split(directory)

    def _keep(self, directory: str, listing: dict[str, Entry]) -> None:
        self._listings[directory] = listing
        self._count += len(listing)
        while self._count > MAX_ENTRIES and len(self._listings) > 1:
            _, old = self._listings.popitem(last=False)
            self._count -= len(old)
