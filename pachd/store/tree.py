"""A copy-on-write B+tree from paths to files: what a commit is.

A tree is the ID of its root page, or None when it is empty. Changing k of n files writes O(k log n) new pages and
leaves the old ones alone, so every commit keeps its tree. Equal subtrees have equal IDs, so a diff skips them. Inner
pages know how many files and bytes are below each child, and its shape (`pachd.store.shape`), so a directory's size
and hash need no walk.

Keys are `path` for a file with the default datum tag and `path NUL tag` for others, in bytewise order; paths are ASCII.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from pachd.store import shape
from pachd.store.pages import Pages

FANOUT = 128
_SMALL = FANOUT // 4
_KNOWN_TOTALS = 2000  # that a store remembers: pages never change, and directories are asked for again and again

Entry = tuple[str, int, bytes, tuple[int, ...], bytes]
"""A file in a leaf: (key, size in bytes, hash of 32 bytes, chunk references, block hashes); see
`pachd.store.contents`."""

Child = tuple[str, str, bytes, int, int, int, str | None, bytes, bytes]
"""A page in its parent: (first key, last key, page ID, entries in the page, files, bytes, the datum tag if all files
below have the same one, the two numbers of its shape)."""

Merge = Callable[[Entry | None, Any], Entry | None]
"""(the entry there is, a change) -> the entry there will be, or None for no file."""

_key = itemgetter(0)


class Total(NamedTuple):
    """The sum over a range of keys. Without files, `first` and `last` are empty."""

    files: int
    size: int
    shape: shape.Shape
    first: str
    last: str


NOTHING = Total(0, 0, shape.EMPTY, "", "")


def path_of(key: str) -> str:
    """The path of a key."""
    return key.partition("\0")[0] if "\0" in key else key


def tag_of(key: str) -> str:
    """The datum tag of a key; "" is the default tag."""
    return key.partition("\0")[2]


def join_totals(a: Total, b: Total) -> Total:
    """The sum of two neighbouring ranges."""
    if not a.files:
        return b
    if not b.files:
        return a
    left = a.shape
    if a.last[: a.last.rfind("/") + 1] != b.first[: b.first.rfind("/") + 1]:
        left = shape.join(left, shape.between(a.last, b.first))
    return Total(a.files + b.files, a.size + b.size, shape.join(left, b.shape), a.first, b.last)


def _sum_files(entries: Sequence[Entry]) -> Total:
    if not entries:
        return NOTHING
    files = [(path_of(e[0]), e[2]) for e in entries]
    return Total(len(entries), sum(e[1] for e in entries), shape.of_files(files), files[0][0], files[-1][0])


def _sum_children(children: Sequence[Child]) -> Total:
    """The sum over neighbouring pages."""
    if not children:
        return NOTHING
    files = size = value = 0
    power, last = 1, ""
    for child in children:
        first = path_of(child[0])
        if files and last[: last.rfind("/") + 1] != first[: first.rfind("/") + 1]:
            value, power = shape.join((value, power), shape.between(last, first))
        numbers = int.from_bytes(child[7], "big"), int.from_bytes(child[8], "big")
        value, power = shape.join((value, power), numbers)
        files += child[4]
        size += child[5]
        last = path_of(child[1])
    return Total(files, size, (value, power), path_of(children[0][0]), last)


def summary(page_id: bytes, level: int, entries: Sequence[Any]) -> Child:
    """What the page with these entries is to its parent."""
    tag: str | None
    if level == 0:
        total = _sum_files(entries)
        tags = {tag_of(e[0]) if "\0" in e[0] else "" for e in entries}
        tag = tags.pop() if len(tags) == 1 else None
        last = entries[-1][0]
    else:
        total = _sum_children(entries)
        kinds = {child[6] for child in entries}
        tag = kinds.pop() if len(kinds) == 1 else None
        last = entries[-1][1]
    value, power = total.shape
    numbers = value.to_bytes(32, "big"), power.to_bytes(32, "big")
    return (entries[0][0], last, page_id, len(entries), total.files, total.size, tag, *numbers)


class Tree:
    """One version of a tree, seen through the pages of one transaction. `root` is its root page's ID, None when it is
    empty."""

    def __init__(self, pages: Pages, root: bytes | None) -> None:
        self.pages = pages
        self.root = root

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Entry | None:
        """The file of exactly this key."""
        page_id = self.root
        while page_id is not None:
            level, entries = self.pages.get(page_id)
            at = bisect_right(entries, key, key=_key) - 1
            if at < 0:
                return None
            if level == 0:
                entry: Entry = entries[at]
                return entry if entry[0] == key else None
            page_id = entries[at][2]
        return None

    def leaves(self, low: str = "", high: str | None = None) -> Iterator[Sequence[Entry]]:
        """The files with low <= key < high, in order, a page's worth at a time (never an empty one)."""
        if self.root is not None:
            yield from self._leaves(self.root, low, high)

    def _leaves(self, page_id: bytes, low: str, high: str | None) -> Iterator[Sequence[Entry]]:
        level, entries = self.pages.get(page_id)
        if level == 0:
            start = bisect_left(entries, low, key=_key) if entries[0][0] < low else 0
            stop = len(entries)
            if high is not None and entries[-1][0] >= high:
                stop = bisect_left(entries, high, key=_key)
            if start < stop:
                yield entries if stop - start == len(entries) else entries[start:stop]
            return
        for child in entries[max(0, bisect_right(entries, low, key=_key) - 1) :]:
            if high is not None and child[0] >= high:
                return
            if child[1] >= low:
                yield from self._leaves(child[2], low, high)

    def scan(self, low: str = "", high: str | None = None) -> Iterator[Entry]:
        """The files with low <= key < high, in order."""
        for leaf in self.leaves(low, high):
            yield from leaf

    def first(self, low: str, high: str | None) -> Entry | None:
        """The first file with low <= key < high."""
        for leaf in self.leaves(low, high):
            return leaf[0]
        return None

    def successors(self, keys: Sequence[str]) -> Iterator[str | None]:
        """For each of the sorted keys: the first key in the tree that is not smaller."""
        at = 0
        for leaf in self._leaf_pages(keys):
            last = leaf[-1][0]
            while at < len(keys) and keys[at] <= last:
                yield leaf[bisect_left(leaf, keys[at], key=_key)][0]
                at += 1
        yield from [None] * (len(keys) - at)

    def _leaf_pages(self, keys: Sequence[str]) -> Iterator[Sequence[Entry]]:
        """The leaves in which the successors of sorted keys are."""

        def visit(page_id: bytes, start: int) -> Iterator[Sequence[Entry]]:
            level, entries = self.pages.get(page_id)
            if level == 0:
                yield entries
                return
            for child in entries:
                stop = bisect_right(keys, child[1], start)
                if stop > start:
                    yield from visit(child[2], start)
                    start = stop

        if self.root is not None and keys:
            yield from visit(self.root, 0)

    def tag(self) -> str | None:
        """The datum tag that all files have; None if they have several, or there are none."""
        if self.root is None:
            return None
        level, entries = self.pages.get(self.root)
        tags = {child[6] for child in entries} if level else {tag_of(entry[0]) for entry in entries}
        return tags.pop() if len(tags) == 1 else None

    def total(self, low: str = "", high: str | None = None) -> Total:
        """The sum over low <= key < high, in O(log n)."""
        if self.root is None:
            return NOTHING
        known, key = self.pages.totals, (self.root, low, high)
        found = known.get(key)
        if found is None:
            found = self._total(self.root, low, high)
            if len(known) >= _KNOWN_TOTALS:
                known.clear()
            known[key] = found
        return found

    def _total(self, page_id: bytes, low: str, high: str | None) -> Total:
        level, entries = self.pages.get(page_id)
        if level == 0:
            start = bisect_left(entries, low, key=_key)
            stop = len(entries) if high is None else bisect_left(entries, high, key=_key)
            return _sum_files(entries[start:stop])
        result = NOTHING
        inside: list[Child] = []
        for child in entries[max(0, bisect_right(entries, low, key=_key) - 1) :]:
            if high is not None and child[0] >= high:
                break
            if child[1] < low:
                continue
            if child[0] >= low and (high is None or child[1] < high):
                inside.append(child)
                continue
            result = join_totals(result, _sum_children(inside))
            inside = []
            result = join_totals(result, self._total(child[2], low, high))
        return join_totals(result, _sum_children(inside))

    # -- changing --------------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[tuple[str, Any]], merge: Merge) -> "Tree":
        """A new tree with `changes` [(key, change)], sorted by key, each key once; `merge` says what a change does."""
        if not changes:
            return self
        return self._grown(self._apply(self.root, changes, merge))

    def _apply(self, page_id: bytes | None, changes: Sequence[tuple[str, Any]], merge: Merge) -> list[Child]:
        level, entries = self.pages.get(page_id) if page_id is not None else (0, ())
        if level == 0:
            return self._split(0, _merged(entries, changes, merge))
        out: list[Child] = []
        start = 0
        for i, child in enumerate(entries):
            if i + 1 == len(entries):
                stop = len(changes)
            else:
                stop = bisect_left(changes, entries[i + 1][0], start, key=_key)
            if stop > start:
                out += self._apply(child[2], changes[start:stop], merge)
            else:
                out.append(child)
            start = stop
        return self._split(level, self._joined(level - 1, out))

    def without(self, low: str, high: str | None, tag: str) -> "Tree":
        """A new tree without the files low <= key < high that have this datum tag."""
        if self.root is None:
            return self
        return self._grown(self._without(self.root, low, high, tag))

    def _without(self, page_id: bytes, low: str, high: str | None, tag: str) -> list[Child]:
        level, entries = self.pages.get(page_id)
        if level == 0:
            kept = [e for e in entries if e[0] < low or (high is not None and e[0] >= high) or tag_of(e[0]) != tag]
            return self._split(0, kept)
        out: list[Child] = []
        for child in entries:
            if child[1] < low or (high is not None and child[0] >= high) or (child[6] is not None and child[6] != tag):
                out.append(child)
            elif not (child[6] == tag and child[0] >= low and (high is None or child[1] < high)):
                out += self._without(child[2], low, high, tag)
        return self._split(level, self._joined(level - 1, out))

    def _split(self, level: int, entries: Sequence[Any]) -> list[Child]:
        """Pages for these entries, none fuller than FANOUT, as children for the level above."""
        pages = -(-len(entries) // FANOUT)
        if not pages:
            return []
        step = -(-len(entries) // pages)
        out = []
        for i in range(0, len(entries), step):
            part = tuple(entries[i : i + step])
            out.append(summary(self.pages.put(level, part), level, part))
        return out

    def _joined(self, level: int, children: list[Child]) -> list[Child]:
        """Join pages that have become small with a neighbour, so that deleting keeps the tree shallow."""
        if len(children) < 2 or all(child[3] >= _SMALL for child in children):
            return children
        out: list[Child] = []
        for child in children:
            if out and (child[3] < _SMALL or out[-1][3] < _SMALL):
                left = self.pages.get(out.pop()[2])[1]
                out += self._split(level, left + self.pages.get(child[2])[1])
            else:
                out.append(child)
        return out

    def _grown(self, children: list[Child]) -> "Tree":
        """Add levels until there is one root; drop levels that have one child only."""
        if not children:
            return Tree(self.pages, None)
        level = self.pages.get(children[0][2])[0]
        while len(children) > 1:
            level += 1
            children = self._split(level, self._joined(level - 1, children))
        root = children[0][2]
        while True:
            level, entries = self.pages.get(root)
            if level == 0 or len(entries) > 1:
                return Tree(self.pages, root)
            root = entries[0][2]

    # -- comparing -------------------------------------------------------------------------------------------------

    def diff(self, old: "Tree", low: str = "", high: str | None = None) -> Iterator[tuple[Entry | None, Entry | None]]:
        """(old entry, this tree's entry) for every key in the range whose size or hash differs, in order.

        Subtrees that both have are not opened.
        """
        left, right = _Cursor(old, low, high), _Cursor(self, low, high)
        while True:
            a, b = left.head, right.head
            if a is None and b is None:
                return
            if a is not None and b is not None:
                if a[0] and b[0]:
                    if a[1][2] == b[1][2]:
                        left.skip()
                        right.skip()
                    elif a[0] == b[0] and a[1][0] == b[1][0]:
                        left.open()
                        right.open()
                    elif a[0] > b[0] or (a[0] == b[0] and a[1][0] < b[1][0]):
                        left.open()
                    else:
                        right.open()
                    continue
                if a[0] and a[1][0] <= b[1][0]:
                    left.open()
                    continue
                if b[0] and b[1][0] <= a[1][0]:
                    right.open()
                    continue
                if a[1][0] == b[1][0]:
                    if a[1][1:3] != b[1][1:3]:
                        yield a[1], b[1]
                    left.skip()
                    right.skip()
                    continue
            if b is None or (a is not None and a[1][0] < b[1][0]):
                assert a is not None
                if a[0]:
                    left.open()
                else:
                    yield a[1], None
                    left.skip()
            elif b[0]:
                right.open()
            else:
                yield None, b[1]
                right.skip()


def _merged(entries: Sequence[Entry], changes: Sequence[tuple[str, Any]], merge: Merge) -> list[Entry]:
    changed: list[Entry] = []
    if not entries:
        for key, change in changes:
            entry = merge(None, change)
            if entry is not None:
                changed.append((key, *entry[1:]))
        return changed
    known = {e[0]: e for e in entries}
    for key, change in changes:
        entry = merge(known.pop(key, None), change)
        if entry is not None:
            changed.append((key, *entry[1:]))
    return list(heapq.merge(known.values(), changed, key=_key))


class _Cursor:
    """A place in a tree: `head` is (level of the page, its child entry) for a page not opened, (0, entry) for a
    file."""

    def __init__(self, tree: Tree, low: str, high: str | None) -> None:
        self._pages, self._low, self._high = tree.pages, low, high
        self._todo: list[Iterator[tuple[int, Any]]] = []
        self.head: tuple[int, Any] | None = None
        if tree.root is not None:
            self._push(tree.root)
        self.skip()

    def _push(self, page_id: bytes) -> None:
        level, entries = self._pages.get(page_id)
        low, high = self._low, self._high
        if level:
            inside = [(level, c) for c in entries if c[1] >= low and (high is None or c[0] < high)]
        else:
            inside = [(0, e) for e in entries if e[0] >= low and (high is None or e[0] < high)]
        self._todo.append(iter(inside))

    def skip(self) -> None:
        """Go past the head."""
        while self._todo:
            for head in self._todo[-1]:
                self.head = head
                return
            self._todo.pop()
        self.head = None

    def open(self) -> None:
        """Replace the head, a page, by what is in it."""
        assert self.head is not None
        self._push(self.head[1][2])
        self.skip()
