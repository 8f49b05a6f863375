"""Commits of many changes: applied a part at a time, and made ahead of the transaction that finishes them."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pachd.pfs import changes, collect, filesets, runs
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.pfs.modify import Modification
from pachd.proto import pfs_pb2
from pachd.store import Store
from pachd.store.contents import ContentWriter, shared
from pachd.store.pages import Pages
from pachd.store.tree import Tree
from tests.pfs_files.bare import BARE_COMMITS, Repo, delete, put


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has more than a few operations is large."""
    monkeypatch.setattr(changes, "LARGE", 200)
    monkeypatch.setattr(changes, "_PART", 16)
    monkeypatch.setattr(runs, "_BLOCK", 4)
    monkeypatch.setattr(runs, "_RUN", 30)
    monkeypatch.setattr(runs, "_IN_MEMORY", 100)


def check(store: Store) -> list[str]:
    with store.read() as txn:
        return list(collect.check(txn, rehash=True))


def ahead(repo: Repo) -> filesets.Ahead:
    with repo.store.read() as txn:
        row = repo.row(txn)
    made = filesets.ahead_of_commit(repo.store, row)
    assert isinstance(made, filesets.Ahead)
    return made


def many(prefix: str, count: int = 60, data: bytes = b"x") -> list[Callable[[Modification], object]]:
    names = list(range(count))
    random.Random(1).shuffle(names)
    return [put(f"{prefix}{n}", data + b"%d" % n) for n in names]


def state(prefix: str, count: int = 60, data: bytes = b"x") -> dict[str, bytes]:
    return {f"{prefix}{n}": data + b"%d" % n for n in range(count)}


names = st.sampled_from(["a", "b", "ab", "c"])
paths = st.builds("/{}".format, st.lists(names, min_size=1, max_size=3).map("/".join))
tags = st.sampled_from(["", "", "", "\0t1", "\0t2"])
ops = st.one_of(
    st.builds(lambda p, t, n: (changes.ADD, p + t, 1, bytes([n]) * 32, (n, 0, 1), b""), paths, tags, st.integers(0, 5)),
    st.builds(lambda p, t: (changes.DELETE, p + t), paths, tags),
    st.builds(lambda p, t: (changes.DELETE_TREE, p + "/", t[1:]), paths, tags),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(ops, max_size=30), rows=st.lists(st.lists(ops, max_size=40), min_size=1, max_size=6))
def test_parts_do_what_the_whole_does(
    store: Store,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    before: list[changes.Op],
    rows: list[list[changes.Op]],
) -> None:
    monkeypatch.setattr(changes, "join", lambda _txn, _writer, parts: parts[-1])
    with store.read() as txn:
        pages = Pages(txn)
        base = Tree(pages, None)
        first = changes.Changes()
        first.add([op for op in before if op[0] == changes.ADD])
        base, added = first.apply(base, txn, None)
        if changes.first_error(base, added):
            base = Tree(pages, None)  # nothing builds on an invalid tree
        whole = changes.Changes()
        for row in rows:
            whole.add(row)
        expected, added = whole.apply(base, txn, None)
        error = changes.first_error(expected, added)
    with store.write() as txn:
        pages = Pages(txn)
        pages.new.update(base.pages.new)
        packed = [changes.pack(row) for row in rows]
        found, found_error, touched, _idle = changes.apply_all(
            txn, Tree(pages, base.root), packed, ContentWriter(txn.store), True
        )
        assert list(found.scan()) == list(expected.scan())
        assert found_error == error
        assert found.total() == expected.total()
        assert (touched is None) == (sum(map(len, packed)) > 200 or whole.touched is None)


def test_rows_are_kept_in_order(tmp_path: Path, small_parts: None) -> None:
    rows = runs.Rows(str(tmp_path))
    expected = [bytes([n]) * (n + 1) for n in range(50)]
    for row in expected:
        rows.append(row)
    assert list(rows) == expected
    assert list(rows) == expected, "they can be read twice"
    assert rows.size == sum(map(len, expected))
    assert list(tmp_path.iterdir()) == []
    rows.close()
    rows.close()


def test_large_commits_in_a_row(repo: Repo, store: Store, small_parts: None) -> None:
    model: dict[str, bytes] = {}
    for step in range(4):
        repo.commit(delete("/d1/"), *many(f"/d{step}/f", 80), put("/d0/f1", b"more"))
        model = {name: data for name, data in model.items() if not name.startswith("/d1/")}
        model |= {name: model.get(name, b"") + data for name, data in state(f"/d{step}/f", 80).items()}
        model["/d0/f1"] = model.get("/d0/f1", b"") + b"more"
        assert repo.contents() == model
    assert check(store) == []


def test_a_tree_made_ahead_is_taken(
    repo: Repo, store: Store, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit(put("/d/f1", b"old "))
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    with monkeypatch.context() as patch:
        patch.setattr(changes, "apply_all", lambda *_args: pytest.fail("nothing is left to do"))
        assert repo.finish().root == made.root
    made.close()
    expected = state("/d/f")
    expected["/d/f1"] = b"old " + expected["/d/f1"]
    assert repo.contents() == expected
    assert not collect.garbage(store).containers
    assert repo.contents() == expected
    assert check(store) == []
    assert not shared(store).pins


def test_what_is_written_meanwhile_counts(repo: Repo, store: Store, small_parts: None) -> None:
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    repo.write(delete("/d/f3"), put("/d/f4", b" and more"), put("/e", b"1"))
    repo.finish()
    made.close()
    expected = state("/d/f") | {"/d/f4": b"x4 and more", "/e": b"1"}
    del expected["/d/f3"]
    assert repo.contents() == expected
    assert check(store) == []


def test_an_invalid_tree_can_become_valid_meanwhile(repo: Repo, store: Store, small_parts: None) -> None:
    repo.start()
    repo.write(*many("/d/f"), put("/d", b"a file"))
    made = ahead(repo)
    assert "collision" in made.error
    repo.write(delete("/d"))
    assert repo.finish().error == ""
    made.close()
    assert repo.contents() == state("/d/f")


def test_an_invalid_tree_made_ahead(repo: Repo, store: Store, small_parts: None) -> None:
    repo.start()
    repo.write(*many("/d/f"), put("/d", b"a file"))
    made = ahead(repo)
    assert repo.finish().error == made.error == "file / directory path collision (/d/f0)"
    made.close()


def test_a_cleared_commit_does_not_take_it(repo: Repo, store: Store, small_parts: None) -> None:
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    with store.write() as txn:
        filesets.clear(txn, repo.row(txn))
    repo.write(put("/e", b"1"))
    repo.finish()
    made.close()
    assert repo.contents() == {"/e": b"1"}


def test_another_base_does_not_take_it(repo: Repo, store: Store, small_parts: None) -> None:
    first = repo.start()
    repo.write(put("/a", b"1"))
    repo.finish()
    second = repo.start()
    repo.write(put("/b", b"2"))
    repo.finish()
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    with store.write() as txn:  # as when the second commit is dropped
        txn.db.execute("UPDATE commits SET parent_pk=? WHERE pk=?", (first, repo.head))
        txn.db.execute("DELETE FROM commits WHERE pk=?", (second,))
    collect.garbage(store)
    repo.finish()
    made.close()
    assert repo.contents() == state("/d/f") | {"/a": b"1"}
    assert check(store) == []


def test_collections_leave_what_is_made_ahead(repo: Repo, store: Store, small_parts: None) -> None:
    repo.commit(*many("/d/f", 30, b"old "))
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    collect.garbage(store)
    repo.finish()
    collect.garbage(store)
    made.close()
    collect.garbage(store)
    expected = state("/d/f")
    expected |= {f"/d/f{n}": b"old %dx%d" % (n, n) for n in range(30)}
    assert repo.contents() == expected
    assert check(store) == []


def test_what_nobody_took_is_collected(repo: Repo, store: Store, small_parts: None) -> None:
    repo.commit(put("/a", b"1"))
    assert not collect.garbage(store).pages
    repo.start()
    repo.write(*many("/d/f"))
    made = ahead(repo)
    assert not collect.garbage(store).pages
    made.close()
    assert collect.garbage(store).pages
    repo.finish()
    assert repo.contents() == state("/d/f") | {"/a": b"1"}
    assert check(store) == []


def test_large_is_raised_only_where_it_may_be(repo: Repo, store: Store, small_parts: None) -> None:
    repo.start()
    repo.write(*many("/d/f"))
    with pytest.raises(filesets.Large) as large, store.write() as txn:
        filesets.may_retry(txn)
        filesets.finish(txn, repo.row(txn))
    made = large.value.make()
    with store.write() as txn:
        filesets.may_retry(txn)
        assert filesets.finish(txn, repo.row(txn)).root is not None
        txn.db.execute("UPDATE commits SET state=? WHERE pk=?", (pfs_pb2.FINISHED, repo.head))
    made.close()


KILLED = """
import os, sys
from pachd.pfs import changes, filesets
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.store import Store
from tests.pfs_files.bare import BARE_COMMITS, Repo, put
changes.LARGE, changes._PART = 200, 16
with Store.open(sys.argv[1], [FILES_SCHEMA, BARE_COMMITS]) as store:
    repo = Repo(store)
    repo.commit(put("/a", b"1"))
    repo.start()
    repo.write(*(put(f"/d/f{n}", b"x%d" % n) for n in range(60)))
    with store.read() as txn:
        row = repo.row(txn)
    made = filesets.ahead_of_commit(store, row)
    assert made.root
    print(repo.head, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_killed_before_the_tree_was_taken(tmp_path: Path, small_parts: None) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -9
    with Store.open(tmp_path, [FILES_SCHEMA, BARE_COMMITS]) as store:
        repo = Repo(store)
        repo.head = int(done.stdout)
        assert check(store) == []
        assert collect.garbage(store).pages
        made = ahead(repo)
        repo.finish()
        made.close()
        assert repo.contents() == state("/d/f") | {"/a": b"1"}
        assert check(store) == []
