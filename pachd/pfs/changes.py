"""What a stream of modifications does to a tree.

A stream is a list of operations; the effect of several streams is that of their operations one after the other:
(ADD, key, size, hash, references, block hashes) appends to a file, (DELETE, key) removes a file, (DELETE_TREE,
directory, tag) removes all files below a directory that have this datum tag.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain

import msgpack  # type: ignore[import-untyped]

from pachd.pfs import paths
from pachd.pfs.runs import ADD, DELETE, DELETE_TREE, Op, Runs
from pachd.store.contents import Content, ContentWriter, join
from pachd.store.store import Snapshot
from pachd.store.tree import Entry, Tree, path_of, tag_of

LARGE = 4 << 20  # bytes of packed operations; more are put aside and applied a part at a time
_PART = 20_000  # operations

__all__ = ["ADD", "DELETE", "DELETE_TREE", "LARGE", "Changes", "Op", "apply_all", "first_error", "pack", "unpack"]


def pack(ops: Sequence[Op]) -> bytes:
    """Operations as the bytes of a row."""
    data: bytes = msgpack.packb(ops)
    return data


def unpack(data: bytes) -> Sequence[Op]:
    """The operations of a row."""
    found: Sequence[Op] = msgpack.unpackb(data, use_list=False)
    return found


def references(ops: Iterable[Op]) -> Iterator[tuple[int, ...]]:
    """The references to contents that operations have."""
    for op in ops:
        if op[0] == ADD:
            yield op[4]


class _File:
    """What becomes of one key: `parts` are appended to what is there, or replace it."""

    __slots__ = ("at", "parts", "replaced")

    def __init__(self, at: int, replaced: bool) -> None:
        self.at = at
        self.replaced = replaced
        self.parts: list[Content] = []


class Changes:
    """Operations collected, ready to be applied to a tree."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._trees: dict[tuple[str, str], int] = {}
        self._at = 0
        self.idle: list[str] = []  # keys that `apply` found as they should become, sorted

    @property
    def touched(self) -> Collection[str] | None:
        """The keys that are named; None if others may be concerned too."""
        return None if self._trees else self._files.keys()

    @property
    def added(self) -> list[str]:
        """The keys that they may add, sorted."""
        return sorted(key for key, file in self._files.items() if file.parts)

    def add(self, ops: Iterable[Op]) -> None:
        """Collect the operations of one more stream."""
        files, trees, at = self._files, self._trees, self._at
        for op in ops:
            at += 1
            kind, key = op[0], op[1]
            if kind == DELETE_TREE:
                trees[key, op[2]] = at
                continue
            file = files.get(key)
            if file is None:
                file = files[key] = _File(at, False)
            if trees:
                self._deleted_with_tree(key, file)
            file.at = at
            if kind == ADD:
                file.parts.append(Content(*op[2:]))
            else:
                file.replaced, file.parts = True, []
        self._at = at

    def _deleted_with_tree(self, key: str, file: _File) -> None:
        """Forget what came before the last deletion of a directory above the file."""
        tag = tag_of(key)
        last = max((self._trees.get((parent, tag), 0) for parent in paths.parents(path_of(key))), default=0)
        if last >= file.at:
            file.replaced, file.parts = True, []

    def apply(self, tree: Tree, txn: Snapshot, writer: ContentWriter | None) -> tuple[Tree, list[str]]:
        """(the tree with these changes, the keys that they may have added, sorted).

        writer: where pieces that are joined into one file are written; None for a reader, who leaves them where they
        are.
        """
        if self._trees:
            for key, file in self._files.items():
                self._deleted_with_tree(key, file)
            for directory, tag in sorted(self._trees):
                tree = tree.without(directory, paths.after(directory), tag)

        idle: set[int] = set()

        def merge(old: Entry | None, file: _File) -> Entry | None:
            parts = file.parts
            if old is not None and not file.replaced:
                parts = [Content(*old[1:]), *parts]
            if not parts:
                if old is None:
                    idle.add(id(file))
                return None
            content = parts[0] if len(parts) == 1 else join(txn, writer, parts)
            if old is not None and old[2] == content.hash and old[1] == content.size:
                idle.add(id(file))
                return old  # the same bytes: keep the references, and with them the page
            return ("", *content)

        ordered = sorted(self._files.items())
        tree = tree.apply(ordered, merge)
        self.idle = [key for key, file in ordered if id(file) in idle] if idle else []
        return tree, [key for key, file in ordered if file.parts]


def first_error(tree: Tree, added: Sequence[str]) -> str:
    """What makes the tree invalid, "" if nothing does. Only files among the keys `added` (sorted) can be the reason.

    Two datums wrote the same path, or a file has the name of a directory. The words are Pachyderm's.
    """
    return _error_of(_doubled(tree, added), _collided(tree, added))


def _error_of(doubled: tuple[str, str, str] | None, collided: str | None) -> str:
    if doubled is None and collided is None:
        return ""
    if collided is None or (doubled is not None and doubled[0] <= collided):
        assert doubled is not None
        path, one, two = doubled
        return f"duplicate path output by different datums ({path} from {one} and {path} from {two})"
    return f"file / directory path collision ({collided})"


def _doubled(tree: Tree, added: Sequence[str]) -> tuple[str, str, str] | None:
    """The first path that two datums wrote, and the two."""
    if tree.tag() is not None:
        return None
    probes = [key + "\0" if "\0" not in key else path_of(key) for key in added]
    probes = sorted(set(probes))
    for probe, found in zip(probes, tree.successors(probes), strict=True):
        path = path_of(probe)
        if found is None or path_of(found) != path:
            continue
        keys = [entry[0] for entry in tree.scan(path, path + "\1") if path_of(entry[0]) == path]
        if len(keys) > 1:
            tags = sorted(tag_of(key) or "default" for key in keys)
            return path, tags[0], tags[1]
    return None


def _collided(tree: Tree, added: Sequence[str]) -> str | None:
    """The first file below a directory that is a file too."""
    above = {parent[:-1] for key in {_dirname(key) for key in added} for parent in paths.parents(key + "x")[1:]}
    names = sorted(above | {path_of(key) for key in added})
    # next behind the name is usually a longer name or the directory itself: the second probe is rarely needed
    probes = [name + "/" for name in names]
    probes.sort()
    found: list[str] = []
    for probe, key in zip(probes, tree.successors(probes), strict=True):
        if key is not None and key.startswith(probe):
            name = probe[:-1]
            entry = tree.first(name, name + "\1")
            if entry is not None and path_of(entry[0]) == name:
                found.append(path_of(key))
    return min(found, default=None)


def _dirname(key: str) -> str:
    path = path_of(key)
    return path[: path.rfind("/") + 1]


def apply_all(
    txn: Snapshot, tree: Tree, rows: Iterable[bytes], writer: ContentWriter, check: bool = True
) -> tuple[Tree, str, Collection[str] | None, Sequence[str]]:
    """(the tree after the operations of these rows, what makes it invalid if `check`, the keys that may be changed or
    None where that is not known, the keys that were written or deleted and are as they were, of few operations).

    Some of its pages may have been flushed; the caller flushes the others.
    """
    rest = iter(rows)
    few: list[bytes] = []
    size = 0
    for row in rest:
        few.append(row)
        size += len(row)
        if size > LARGE:
            return *_apply_many(txn, tree, chain(few, rest), writer, check), None, ()
    changes = Changes()
    for row in few:
        changes.add(unpack(row))
    tree, added = changes.apply(tree, txn, writer)
    return tree, first_error(tree, added) if check else "", changes.touched, changes.idle


def _apply_many(
    txn: Snapshot, tree: Tree, rows: Iterable[bytes], writer: ContentWriter, check: bool
) -> tuple[Tree, str]:
    """(the tree after the operations of these rows, what makes it invalid), in memory that does not grow with them."""
    with Runs(txn.store.path) as runs:
        for row in rows:
            runs.add(unpack(row))
        runs.finish()
        for number, (directory, tag) in enumerate(sorted(runs.trees), 1):
            tree = tree.without(directory, paths.after(directory), tag)
            if number % 256 == 0:
                tree.pages.flush(tree.root)
        suspect = False
        for changes in _parts(runs):
            tree, added = changes.apply(tree, txn, writer)
            # A later part can still delete the one of two files; but no part can make an invalid tree unnoticed.
            suspect = suspect or (check and first_error(tree, added) != "")
            tree.pages.flush(tree.root)
        if not suspect:
            return tree, ""
        doubled = _first(_doubled(tree, changes.added) for changes in _parts(runs))
        collided = [found for changes in _parts(runs) if (found := _collided(tree, changes.added)) is not None]
        return tree, _error_of(doubled, min(collided, default=None))


def _parts(runs: Runs) -> Iterator[Changes]:
    for ops in runs.parts(_PART):
        changes = Changes()
        changes.add(ops)
        yield changes


def _first(found: Iterable[tuple[str, str, str] | None]) -> tuple[str, str, str] | None:
    return next((each for each in found if each is not None), None)
