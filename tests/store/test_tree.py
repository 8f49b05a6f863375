"""The tree against a dictionary: contents, order, sums, shapes, structure, differences."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pachd.store import Store, shape
from pachd.store import tree as trees
from pachd.store.pages import PAGE_SCHEMA, Pages
from pachd.store.tree import FANOUT, Entry, Tree, path_of, tag_of

Model = dict[str, Entry]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("tree") / "data", [PAGE_SCHEMA]) as opened:
        yield opened


def entry(key: str, salt: int = 0) -> Entry:
    digest = hashlib.blake2b(f"{key} {salt}".encode(), digest_size=32).digest()
    return (key, len(key) + salt % 7, digest, (1, 0, 5), b"")


def put(tree: Tree, changes: dict[str, Entry | None]) -> Tree:
    return tree.apply(sorted(changes.items()), lambda _old, new: new)


def update(model: Model, changes: dict[str, Entry | None]) -> Model:
    model = dict(model)
    for key, value in changes.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
    return model


def check(tree: Tree, model: Model) -> None:
    """Everything that must hold of a tree."""
    assert list(tree.scan()) == [model[key] for key in sorted(model)]
    total = tree.total()
    assert (total.files, total.size) == (len(model), sum(e[1] for e in model.values()))
    tags = {tag_of(key) for key in model}
    assert tree.tag() == (tags.pop() if len(tags) == 1 else None)
    if tree.root is not None:
        check_page(tree, tree.root, True)


def check_page(tree: Tree, page_id: bytes, is_root: bool) -> tuple[int, str, str]:
    level, entries = tree.pages.get(page_id)
    assert 0 < len(entries) <= FANOUT
    assert [e[0] for e in entries] == sorted({e[0] for e in entries})
    if level == 0:
        return level, entries[0][0], entries[-1][0]
    if is_root:
        assert len(entries) > 1
    for child in entries:
        below, first, last = check_page(tree, child[2], False)
        assert (below, first, last) == (level - 1, child[0], child[1])
        files = list(Tree(tree.pages, child[2]).scan())
        assert (child[4], child[5]) == (len(files), sum(f[1] for f in files))
        tags = {tag_of(f[0]) for f in files}
        assert child[6] is None or tags == {child[6]}
    return level, entries[0][0], entries[-1][1]


def slow_directory_hash(model: Model, directory: str) -> tuple[str, object]:
    """The directory as nested tuples of hashes: what its shape must distinguish."""
    children: dict[str, object] = {}
    for key in sorted(model):
        path = path_of(key)
        if path.startswith(directory):
            rest = path[len(directory) :]
            if "/" in rest:
                name = rest.partition("/")[0] + "/"
                children.setdefault(name, slow_directory_hash(model, directory + name))
            else:
                children[rest] = model[key][2]
    return "dir", tuple(children[name] for name in sorted(children))


def directory_hash(tree: Tree, directory: str) -> bytes:
    total = tree.total(directory, directory[:-1] + "0")
    return shape.of_directory(total.shape, total.first, total.last, directory.count("/") - 1)


names = st.sampled_from(["a", "b", "ab", "a.b", "c d", "x"])
keys = st.builds(
    lambda parts, tag: "/" + "/".join(parts) + tag,
    st.lists(names, min_size=1, max_size=3),
    st.sampled_from(["", "", "", "\0t1", "\0t2"]),
)
batches = st.lists(
    st.dictionaries(keys, st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=40), min_size=1, max_size=6
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches, ranges=st.lists(st.tuples(keys, st.sampled_from(["", "t1"])), max_size=3))
def test_against_a_dictionary(
    store: Store, batches: list[dict[str, int | None]], ranges: list[tuple[str, str]]
) -> None:
    with store.read() as snapshot:
        tree, model = Tree(Pages(snapshot), None), {}
        for batch in batches:
            changes = {k: None if v is None else entry(k, v) for k, v in batch.items()}
            before, old = tree, model
            tree, model = put(tree, changes), update(model, changes)
            check(tree, model)
            check(before, old)
            expected = [
                (old.get(k), model.get(k)) for k in sorted(old.keys() | model.keys()) if old.get(k) != model.get(k)
            ]
            assert list(tree.diff(before)) == expected
        for low, tag in ranges:
            directory = path_of(low) + "/"
            tree = tree.without(directory, directory[:-1] + "0", tag)
            model = {k: v for k, v in model.items() if not (k.startswith(directory) and tag_of(k) == tag)}
            check(tree, model)
        probes = sorted({path_of(low) for low, _ in ranges} | set(list(model)[:5]))
        assert list(tree.successors(probes)) == [min((k for k in model if k >= p), default=None) for p in probes]


def test_large_random_history(store: Store) -> None:
    """Enough files for three levels, grown and shrunk again."""
    rng = random.Random(7)
    with store.read() as snapshot:
        pages = Pages(snapshot)
        tree, model = Tree(pages, None), {}
        paths = [f"/d{rng.randrange(40)}/e{rng.randrange(5)}/f{n}" for n in range(6000)]
        for step in range(12):
            chosen = rng.sample(paths, 900)
            changes: dict[str, Entry | None] = {
                p: entry(p, step) if step < 6 or rng.random() < 0.1 else None for p in chosen
            }
            old = (tree, model)
            tree, model = put(tree, changes), update(model, changes)
            check(tree, model)
            assert [k for k in sorted(old[1].keys() | model) if old[1].get(k) != model.get(k)] == [
                (a or b or ("",))[0] for a, b in tree.diff(old[0])
            ]
        for directory in ("/d1/", "/d2/", "/d30/"):
            inside = [e for k, e in model.items() if k.startswith(directory)]
            total = tree.total(directory, directory[:-1] + "0")
            assert (total.files, total.size) == (len(inside), sum(e[1] for e in inside))
        assert tree.without("", None, "").root is None


def test_diff_opens_only_what_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.read() as snapshot:
        pages = Pages(snapshot)
        old = put(Tree(pages, None), {f"/f{n:06}": entry(f"/f{n:06}") for n in range(50_000)})
        new = put(old, {"/f025000": entry("/f025000", 1)})
        opened: list[bytes] = []
        get = Pages.get
        monkeypatch.setattr(Pages, "get", lambda self, page_id: (opened.append(page_id), get(self, page_id))[1])
        assert len(list(new.diff(old))) == 1
        assert len(opened) <= 6


def test_deleting_most_files_keeps_the_tree_small(store: Store) -> None:
    with store.read() as snapshot:
        pages = Pages(snapshot)
        tree = put(Tree(pages, None), {f"/f{n:06}": entry(f"/f{n:06}") for n in range(40_000)})
        tree = put(tree, {f"/f{n:06}": None for n in range(40_000) if n % 400})
        assert len(list(tree.leaves())) <= 8


def test_directory_hashes_depend_on_structure_not_on_names(store: Store) -> None:
    x, y = entry("/x"), entry("/y")

    def tree_of(files: dict[str, Entry]) -> Tree:
        return put(Tree(Pages(snapshot), None), {k: (k, *v[1:]) for k, v in files.items()})

    with store.read() as snapshot:
        tree = tree_of({"/a/x": x, "/a/y": y, "/b/p": x, "/b/q": y, "/c/s/x": x, "/c/t": y, "/d/s/x": x, "/d/s/y": y})
        a, b, c, d = (directory_hash(tree, f"/{name}/") for name in "abcd")
        assert a == b and len({a, c, d}) == 3
        assert directory_hash(tree, "/d/s/") == a
        assert directory_hash(tree_of({"/a/x": y, "/a/y": x}), "/a/") != a
        assert directory_hash(tree_of({"/a/x": x}), "/") != directory_hash(tree_of({"/x": x}), "/")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    one=st.dictionaries(keys, st.integers(0, 1), min_size=1), two=st.dictionaries(keys, st.integers(0, 1), min_size=1)
)
def test_shapes_say_what_nested_hashes_say(store: Store, one: dict[str, int], two: dict[str, int]) -> None:
    with store.read() as snapshot:
        found = []
        for files in (one, two):
            # two values of content only, and no name that is a file and a directory: equal structures do occur
            model = {path_of(k): ("", 1, bytes([v]) * 32, (), b"") for k, v in files.items()}
            model = {k: (k, *v[1:]) for k, v in model.items() if not any(o.startswith(k + "/") for o in model)}
            tree = put(Tree(Pages(snapshot), None), dict(model))
            found.append({d: (directory_hash(tree, d), slow_directory_hash(model, d)) for d in ["/", *dirs(model)]})
        everything = [*found[0].values(), *found[1].values()]
        for fast, slow in everything:
            assert all((fast == f) == (slow == s) for f, s in everything)


def dirs(model: Model) -> set[str]:
    return {k[: i + 1] for k in model for i, c in enumerate(k) if c == "/" and i}


def test_flush_keeps_only_what_a_root_reaches(tmp_path: Path) -> None:
    with Store.open(tmp_path, [PAGE_SCHEMA]) as store:
        with store.write() as txn:
            pages = Pages(txn)
            lost = put(Tree(pages, None), {f"/a{n}": entry(f"/a{n}") for n in range(300)})
            kept = put(Tree(pages, None), {f"/b{n}": entry(f"/b{n}") for n in range(300)})
            pages.flush(kept.root)
        with store.read() as snapshot:
            assert sum(1 for _ in Tree(Pages(snapshot), kept.root).scan()) == 300
            assert snapshot.db.execute("SELECT count(*) FROM page WHERE id=?", (lost.root,)).fetchone()[0] == 0


def test_totals_are_remembered_only_so_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_KNOWN_TOTALS", 3)
    model = {key: entry(key) for key in (f"/d{n // 50:03d}/{n:04d}" for n in range(600))}
    with store.read() as snapshot:
        tree = put(Tree(Pages(snapshot), None), dict(model))
        for _ in range(2):
            for low, high in (
                ("", None),
                ("/d001/", "/d0010"),
                ("/d003/", "/d009/"),
                ("/d0", "/d0"),
                ("/d011/0599", None),
            ):
                total = tree.total(low, high)
                inside = [e for key, e in model.items() if low <= key and (high is None or key < high)]
                assert (total.files, total.size) == (len(inside), sum(e[1] for e in inside))
                assert len(tree.pages.totals) <= 3
        changed = put(tree, {"/d001/0050": None})
        assert changed.total("/d001/", "/d0010").files == 49 and tree.total("/d001/", "/d0010").files == 50
