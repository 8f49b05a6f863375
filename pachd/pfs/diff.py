"""What differs between two commits, or two places: Pachyderm's DiffFile."""

from collections.abc import Iterator

from pachd.pfs import paths
from pachd.pfs.read import Entry, View
from pachd.store import tree as trees
from pachd.store.tree import Entry as Leaf


def diff(
    new: View, old: View | None, path: str, old_path: str | None = None
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """(new entry, old entry) of every file and directory that is only in one of two views, or whose hash differs, in
    order.

    path: where to compare, a file or a directory; nothing there is no error. old_path: the place in `old`, if it is
    another one.
    """
    place = paths.clean(path)
    other = place if old_path is None else paths.clean(old_path)
    if old is None:
        yield from ((entry, None) for entry in _all(new, place))
    elif other != place:
        yield from _merge(_all(new, place), _all(old, other))
    else:
        yield from _changed(new, old, place)


def differs(new: View, old: View | None, path: str) -> bool:
    """Is a file there in only one of two views, or with another hash? In O(log n), so a history can be searched."""
    if old is not None and new.tree.root == old.tree.root:
        return False
    return _hashes(new, path) != (_hashes(old, path) if old is not None else [])


def _hashes(view: View, path: str) -> list[bytes]:
    return [e[2] for e in view.tree.scan(path, path + "\1") if trees.path_of(e[0]) == path]


def _all(view: View, place: str) -> Iterator[Entry]:
    if (
        place != "/"
        and view.tree.first(place, place + "\1") is None
        and not view.tree.total(place + "/", place + "0").files
    ):
        return iter(())
    return view.walk(place)


def _merge(new: Iterator[Entry], old: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The differences of two listings, path by path."""
    a, b = next(new, None), next(old, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.path < b.path):
            yield a, None
            a = next(new, None)
        elif a is None or b.path < a.path:
            yield None, b
            b = next(old, None)
        else:
            if a.hash != b.hash:
                yield a, b
            a, b = next(new, None), next(old, None)


def _changed(new: View, old: View, place: str) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The same, by the trees: only what changed is opened. Directories come before the first file that changed below
    them."""
    directory = paths.as_dir(place)
    if place != "/":
        yield from _pairs(new, old, place, place + "\1")
    open_dir = ""
    for pair in _pairs(new, old, directory, paths.after(directory)):
        path = (pair[0] or pair[1] or _NONE).path
        inside = path[: path.rfind("/") + 1]
        if inside != open_dir:
            for parent in paths.parents(path):
                if parent.startswith(directory) and not open_dir.startswith(parent):
                    a, b = new.directory(parent), old.directory(parent)
                    if a is None or b is None or a.hash != b.hash:
                        yield a, b
            open_dir = inside
        yield pair


_NONE = Entry("", False, 0, b"", "", 0)


def _pairs(new: View, old: View, low: str, high: str | None) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Files that differ; one that only changed its datum tag is the same file, if its bytes are the same."""
    waiting: tuple[Leaf | None, Leaf | None] | None = None
    for before, after in new.tree.diff(old.tree, low, high):
        if waiting is not None:
            one = waiting[0] or waiting[1]
            two = before or after
            assert one is not None and two is not None
            if trees.path_of(one[0]) == trees.path_of(two[0]) and (waiting[0] is None) != (before is None):
                pair = (waiting[0] or before, waiting[1] or after)
                waiting = None
                if pair[0] is not None and pair[1] is not None and pair[0][2] != pair[1][2]:
                    yield _entry(new, pair[1]), _entry(old, pair[0])
                continue
            yield _entry(new, waiting[1]), _entry(old, waiting[0])
        waiting = (before, after)
        if before is not None and after is not None:
            yield _entry(new, after), _entry(old, before)
            waiting = None
    if waiting is not None:
        yield _entry(new, waiting[1]), _entry(old, waiting[0])


def _entry(view: View, leaf: Leaf | None) -> Entry | None:
    if leaf is None:
        return None
    path, _nul, tag = leaf[0].partition("\0")
    return Entry(path, False, leaf[1], leaf[2], tag or "default", view.committed_ns, leaf[3])
