"""Reading the files of a commit: inspect, list, walk, glob, get.

Directories are synthetic: they exist because files are below them. Everything comes in bytewise order of the paths,
directories (with their slash) included.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from pachd.errors import Aborted, NotFound, PachError
from pachd.pfs import changes, encode, filesets, globs, paths
from pachd.proto import pfs_pb2
from pachd.store import contents, shape
from pachd.store import tree as trees
from pachd.store.pages import Pages
from pachd.store.store import Snapshot
from pachd.store.tree import Tree

MAX_PAGE = 100_000


class Entry(NamedTuple):
    """A file, or a directory (its path ends with a slash, no datum, no references)."""

    path: str
    is_dir: bool
    size: int
    hash: bytes
    datum: str
    committed_ns: int  # when the commit that is read finished; 0 if it is open
    refs: tuple[int, ...] = ()


_new_entry = Entry._make


class PathRange(NamedTuple):
    """Paths with lower <= path < upper; "" is no bound."""

    lower: str = ""
    upper: str = ""


EVERYTHING = PathRange()


class View:
    """The files of one commit, as one transaction sees them.

    `datum`: see only files with this tag. Methods raise PachError where two datums wrote the same path or a file has
    the name of a directory, when they come to it, as Pachyderm does.
    """

    def __init__(self, txn: Snapshot, tree: Tree, committed_ns: int = 0, name: str = "", commit_id: str = "") -> None:
        self._txn = txn
        self.tree = tree
        self.committed_ns = committed_ns
        self.name = name  # of the repo, as errors say it
        self.commit_id = commit_id  # as errors say it: what the client asked for
        self.real_id = commit_id
        self.sound = False  # known to be free of collisions, because the commit finished without an error
        self.failed = False  # known to have one, perhaps
        self._open: filesets.CommitLike | None = None  # the commit, if files may still be written into it

    @classmethod
    def of(cls, txn: Snapshot, row: filesets.CommitLike, datum: str = "", asked_id: str = "") -> "View":
        """The view of a commit. asked_id: the commit ID in the client's request, which Pachyderm's errors repeat.

        Raises PachError if the commit is open and the one it builds on is not finished.
        """
        view = cls(txn, filesets.tree_of(txn, row), row.finishing or 0, str(row.repo), asked_id)
        view.real_id = row.id
        view.failed = bool(row.error)
        view.sound = row.state == pfs_pb2.FINISHED and not view.failed
        view._open = row if row.state != pfs_pb2.FINISHED else None
        return view.only(datum) if datum else view

    def only(self, datum: str) -> "View":
        """This view with only the files of one datum tag."""
        tag = "" if datum == encode.DEFAULT_DATUM else datum
        kept = [(e[0], e) for e in self.tree.scan() if trees.tag_of(e[0]) == tag]
        tree = Tree(Pages(self._txn), None).apply(kept, lambda _old, entry: entry)
        view = View(self._txn, tree, self.committed_ns, self.name, self.commit_id)
        view.real_id, view.sound, view.failed, view._open = self.real_id, self.sound, self.failed, self._open
        return view

    # -- one entry -------------------------------------------------------------------------------------------------

    def inspect(self, path: str) -> Entry:
        """The file or directory of this path, with or without a slash at its end. Raises NotFound."""
        clean = paths.clean(path)
        if clean != "/":
            found = list(self._files(clean, clean + "\1"))
            if found and found[0].path == clean:
                self._check_collision(clean)
                return found[0]
        directory = self.directory(paths.as_dir(clean))
        if directory is None:
            raise self.not_found(path)
        self._check(paths.as_dir(clean))
        return directory

    def not_found(self, path: str) -> NotFound:
        """The error that says so."""
        return NotFound(f"file {path} not found in repo {self.name} at commit {self.commit_id}")

    def directory(self, path: str) -> Entry | None:
        """The directory of this canonical path (with its slash), if it exists. In O(log n)."""
        total = self.tree.total(path, paths.after(path))
        if not total.files:
            return None
        digest = shape.of_directory(total.shape, total.first, total.last, path.count("/") - 1)
        return Entry(path, True, total.size, digest, "", self.committed_ns)

    # -- many entries ----------------------------------------------------------------------------------------------

    def list(self, path: str) -> Iterator[Entry]:
        """What is directly inside a directory, or the file itself; nothing if there is neither."""
        clean = paths.clean(path)
        if clean != "/":
            yield from self._files(clean, clean + "\1")
            self._check_collision(clean)
        yield from self._checked(self._children(paths.as_dir(clean)))

    def walk(self, path: str) -> Iterator[Entry]:
        """A directory and everything below it, or a file. Nothing for the root of an empty commit.

        Raises NotFound for any other path that does not exist.
        """
        clean = paths.clean(path)
        empty = True
        if clean != "/":
            for entry in self._files(clean, clean + "\1"):
                empty = False
                yield entry
            self._check_collision(clean)
        for entry in self._checked(self._below(paths.as_dir(clean))):
            empty = False
            yield entry
        if empty and clean != "/":
            raise self.not_there(path)

    def not_there(self, path: str) -> NotFound:
        """The error of a walk that finds nothing."""
        clean = paths.clean(path)
        return NotFound(f"commit/{self.real_id} does not contain item: ({'' if clean == '/' else clean})")

    def glob(self, pattern: str, path_range: PathRange = EVERYTHING) -> Iterator[Entry]:
        """The files and directories that a glob matches, within a range of paths. Raises PachError for a malformed
        glob."""
        return self._checked(self._matching(globs.compile(pattern), path_range))

    def _matching(self, glob: globs.Glob, path_range: PathRange) -> Iterator[Entry]:
        matches = glob.match
        lower, upper = path_range
        for entry in self._candidates(glob):
            if (not lower or entry.path >= lower) and (not upper or entry.path < upper) and matches(entry.path):
                yield entry

    def _candidates(self, glob: globs.Glob) -> Iterator[Entry]:
        """Everything that could match, in order."""
        if glob.pattern == "/":
            root = self.directory("/")
            if root is not None:
                yield root
        elif glob.literal:
            yield from self._files(glob.pattern, glob.pattern + "\1")
            directory = self.directory(glob.pattern + "/")
            if directory is not None:
                self._check_collision(glob.pattern)
                yield directory
        elif glob.depth is not None:
            start = glob.prefix[: glob.prefix.rfind("/") + 1]
            yield from self._at_depth(start, glob.depth - start.count("/"), glob.prefix)
        else:
            yield from self._below(glob.prefix[: glob.prefix.rfind("/") + 1], glob.prefix)

    def _at_depth(self, directory: str, deeper: int, prefix: str) -> Iterator[Entry]:
        """What is `deeper` levels below a directory's children, and begins with `prefix`."""
        for entry in self._children(directory, prefix if len(prefix) > len(directory) else "", bool(deeper)):
            if not deeper:
                yield entry
            elif entry.is_dir:
                yield from self._at_depth(entry.path, deeper - 1, prefix)

    def _files(self, low: str, high: str | None) -> Iterator[Entry]:
        """The files of a range, without directories."""
        last = ""
        for leaf in self.tree.leaves(low, high):
            for key, size, digest, refs, _ in leaf:
                path, _nul, tag = key.partition("\0")
                if path == last:
                    raise PachError(self._doubled(path))
                last = path
                yield Entry(path, False, size, digest, tag or encode.DEFAULT_DATUM, self.committed_ns, refs)

    def _children(self, directory: str, prefix: str = "", names_only: bool = False) -> Iterator[Entry]:
        """The files and directories directly inside a directory; skips over what is inside those."""
        low, high, depth = prefix or directory, paths.after(prefix or directory), len(directory)
        committed = self.committed_ns
        last = ""
        while True:
            jump = None
            for leaf in self.tree.leaves(low, high):
                for key, size, digest, refs, _ in leaf:
                    if jump is not None and key < jump:
                        continue
                    slash = key.find("/", depth)
                    path, _nul, tag = key.partition("\0")
                    if slash < 0 or slash > len(path):
                        if path == last:
                            raise PachError(self._doubled(path))
                        last = path
                        yield Entry(path, False, size, digest, tag or encode.DEFAULT_DATUM, committed, refs)
                        continue
                    child = path[: slash + 1]
                    self._check_collision(child[:-1])
                    if names_only:
                        yield Entry(child, True, 0, b"", "", committed)
                    else:
                        found = self.directory(child)
                        assert found is not None
                        yield found
                    jump = paths.after(child)
                if jump is not None and leaf[-1][0] < jump:
                    break  # the directory goes on behind this page: find its end from the root
            else:
                return
            assert jump is not None
            low = jump

    def _below(self, directory: str, prefix: str = "") -> Iterator[Entry]:
        """A directory, unless a longer prefix is asked for, and everything below it that begins with `prefix`."""
        prefix = prefix or directory
        committed, default = self.committed_ns, encode.DEFAULT_DATUM
        here, last = "", ""
        for leaf in self.tree.leaves(prefix, paths.after(prefix)):
            for key, size, digest, refs, _ in leaf:
                if "\0" in key:
                    path, _nul, tag = key.partition("\0")
                else:
                    path, tag = key, default
                inside = path[: path.rfind("/") + 1]
                if inside != here:
                    for parent in paths.parents(path):
                        if len(parent) >= len(prefix) and not here.startswith(parent):
                            self._check_collision(parent[:-1])
                            found = self.directory(parent)
                            assert found is not None
                            yield found
                    here = inside
                if path == last:
                    raise PachError(self._doubled(path))
                last = path
                yield _new_entry((path, False, size, digest, tag, committed, refs))

    # -- validity --------------------------------------------------------------------------------------------------

    def _doubled(self, path: str) -> str:
        keys = [entry[0] for entry in self.tree.scan(path, path + "\1") if trees.path_of(entry[0]) == path]
        one, two = sorted(trees.tag_of(key) or encode.DEFAULT_DATUM for key in keys)[:2]
        return f"duplicate path output by different datums ({path} from {one} and {path} from {two})"

    def _check_collision(self, name: str) -> None:
        """Raise if there is a file of this name and a directory too."""
        if self.sound or not name:
            return
        file = self.tree.first(name, name + "\1")
        if file is not None and trees.path_of(file[0]) == name:
            below = self.tree.first(name + "/", name + "0")
            if below is not None:
                raise PachError(f"file / directory path collision ({trees.path_of(below[0])})")

    def _check(self, directory: str) -> None:
        """Raise if something below a directory is invalid; only a commit that is open or failed can be."""
        if self.failed:
            added = [entry[0] for entry in self.tree.scan(directory, paths.after(directory))]
        elif self._open is not None:
            low, high = (bisect_left(self._written, bound) for bound in (directory, paths.after(directory) or ""))
            added = list(self._written[low:high])
        else:
            return
        error = changes.first_error(self.tree, added)
        if error:
            raise PachError(error)

    @cached_property
    def _written(self) -> Sequence[str]:
        return [] if self._open is None else filesets.written(self._txn, self._open)

    def _checked(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """These entries; raises at the first directory with something invalid in it."""
        return entries if self._open is None and not self.failed else self._each_checked(entries)

    def _each_checked(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        valid = ""
        for entry in entries:
            if entry.is_dir and not (valid and entry.path.startswith(valid)):
                self._check(entry.path)
                valid = entry.path
            yield entry

    # -- contents --------------------------------------------------------------------------------------------------

    def read(self, file: "str | Entry", offset: int = 0, size: int = 0) -> Iterator[bytes]:
        """The bytes of a file from `offset`, at most `size` of them (0: all), in pieces of at most 1 MiB.

        Raises NotFound, or PachError for a directory.
        """
        entry = self.inspect(file) if isinstance(file, str) else file
        if entry.is_dir:
            raise PachError("cannot get directory or non-regular file. Use GetFileTAR instead")
        return contents.read(self._txn, entry.refs, offset, size or None)

    def get(self, pattern: str, path_range: PathRange = EVERYTHING) -> Entry:
        """The one file that a glob matches, for GetFile.

        Raises NotFound, or PachError if it matches a directory or several files.
        """
        found: Entry | None = None
        for entry in self.glob(pattern, path_range):
            if entry.is_dir:
                raise PachError("cannot get directory or non-regular file. Use GetFileTAR instead")
            if found is not None:
                raise PachError("matched multiple files. Use GetFileTAR instead")
            found = entry
        if found is None:
            raise self.not_found(pattern)
        return found

    def files(self, pattern: str, path_range: PathRange = EVERYTHING) -> Iterator[Entry]:
        """What a glob matches, with everything inside matched directories: what GetFileTAR sends. Raises NotFound for
        nothing."""
        inside = ""
        empty = True
        lower, upper = path_range
        for entry in self.glob(pattern):
            if inside and entry.path.startswith(inside):
                continue
            group: Iterable[Entry] = [entry]
            if entry.is_dir:
                inside = entry.path
                group = self._below(entry.path)
            for found in group:
                if (not lower or found.path >= lower) and (not upper or found.path < upper):
                    empty = False
                    yield found
        if empty:
            raise self.not_found(pattern)

    def encoded(self, entries: Iterable[Entry], commit: pfs_pb2.Commit) -> bytes:
        """FileInfo messages of these entries for `commit`, each behind its gRPC header, in one byte string."""
        return encode.file_infos(entries, commit)


def check_page(number: int, reverse: bool) -> None:
    """Raise PachError for a page of more than 100,000 entries, or for one backwards without a number."""
    if not number and reverse:
        raise PachError("number must be > 0 when reverse is true")
    if number < 0 and reverse:  # Pachyderm panics
        raise Aborted("number must be > 0 when reverse is true")
    if number > MAX_PAGE:
        raise PachError("cannot return more than 100000 files at a time")


def page(
    entries: Iterable[Entry],
    marker: str | None = None,
    number: int = 0,
    reverse: bool = False,
    nothing: PachError | None = None,
) -> Iterator[Entry]:
    """One page of a listing: at most `number` entries (0: all) behind the path `marker`, or before it, backwards, if
    `reverse`. The marker itself is no part of it; "" means the root, and is no bound.

    nothing: raised if there is nothing at or behind the marker (before it, if `reverse`). Raises as `check_page`, too.
    """
    check_page(number, reverse)
    clean = paths.clean(marker) if marker is not None else None
    if reverse:
        before = [e for e in entries if not marker or e.path < marker]
        if nothing is not None and not before:
            raise nothing
        kept = before if clean is None else [e for e in before if paths.clean(e.path) != clean]
        yield from kept[: -number - 1 : -1]
        return
    left = number
    for entry in entries:
        if marker and entry.path < marker:
            continue
        nothing = None
        if clean is not None and paths.clean(entry.path) == clean:
            continue
        yield entry
        left -= 1
        if not left:
            return
    if nothing is not None:
        raise nothing
