"""The history of a path, against comparing every commit with what it was built on and with what was written into it;
commits come and go meanwhile."""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd import pfs
from pachd.errors import PachError
from pachd.pfs import commits, commitsets, history, projects, refs, repos, steps
from pachd.pfs.diff import differs
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Store
from pachd.store.tree import path_of, tag_of
from pachd.types import Branch, Repo

REPO = Repo("default", "r", "user")
PATHS = ["/a", "/b/1", "/b/2", "/b/c/1", "/b/c/2", "/d", "/e/1"]
IDLE: dict[str, set[str]] = defaultdict(set)  # by commit ID
ASKED = [*PATHS, "/", "/b", "/b/", "/b/c", "/e", "/nothing", "/b/c/", "b/1"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", pfs.SCHEMA) as opened:
        with pfs.writing(opened) as txn:
            if not txn.db.execute("SELECT 1 FROM projects WHERE name='default'").fetchone():
                projects.create_project(txn, "default")
            repos.create_repo(txn, REPO)
        yield opened


def commit(store: Store, chance: random.Random, error: str = "") -> None:
    """A commit of a few random changes; `IDLE` gets the paths that it named and left as they were."""
    named: set[tuple[str, str]] = set()
    cleared = False
    with Modification(store) as modification:
        for _ in range(chance.randrange(4)):
            path = chance.choice(PATHS)
            kind = chance.random()
            if kind < 0.3:
                modification.delete(path)
                named.add((path, ""))
            elif kind < 0.4:
                modification.delete("/b/c/")
                cleared = True
            else:
                tag = chance.choice(["", "", "tag"])
                modification.append(path, bytes([chance.randrange(3)]), tag)
                named.add((path, tag))
        with pfs.writing(store) as txn:
            started = commits.start_commit(txn, Branch(REPO, "master"))
            key = pfs_pb2.Commit(repo=refs.repo_pb(REPO), id=started.id)
            modify_file(txn, key, modification)
            commits.finish_commit(txn, started, error=error)
            made = refs.resolve_commit(txn, key)
            before, after = leaves(txn, base(txn, made)), leaves(txn, made)
            if cleared:
                before = {key: leaf for key, leaf in before.items() if key[1] or not key[0].startswith("/b/c/")}
            IDLE[made.id] = {key[0] for key in named if before.get(key) == after.get(key)}


def base(txn: Snapshot, row: refs.CommitRow) -> refs.CommitRow | None:
    """What a commit was built on: its nearest ancestor that did not fail."""
    above = refs.parent(txn, row)
    while above is not None and above.error:
        above = refs.parent(txn, above)
    return above


def leaves(txn: Snapshot, row: refs.CommitRow | None) -> dict[tuple[str, str], bytes]:
    """{path and tag: hash} of all files."""
    if row is None:
        return {}
    return {(path_of(leaf[0]), tag_of(leaf[0])): leaf[2] for leaf in View.of(txn, row).tree.scan()}


def by_comparing(txn: Snapshot, path: str) -> list[tuple[int, bool]]:
    row: refs.CommitRow | None = refs.resolve_commit(txn, (REPO, "master"))
    found = []
    while row is not None:
        below = base(txn, row)
        before = None if below is None else View.of(txn, below)
        found.append((row.pk, path in IDLE[row.id] or differs(View.of(txn, row), before, path)))
        row = refs.parent(txn, row)
    return found


def check(store: Store) -> None:
    with store.read() as txn:
        head = refs.resolve_commit(txn, (REPO, "master"))
        for path in ASKED:
            assert [(s.pk, s.changed) for s in history.search(txn, head.pk, path)] == by_comparing(txn, path), path
        roots = {row["root"] for row in txn.db.execute("SELECT root FROM commits")}
        assert {row["root"] for row in txn.db.execute("SELECT root FROM step")} <= roots


@pytest.mark.parametrize("seed", range(12))
def test_as_by_comparing(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        commit(store, chance, error="broken" if chance.random() < 0.1 else "")
    check(store)
    for _ in range(8):
        with store.read() as txn:
            rows = refs.commit_rows(txn, "1 ORDER BY c.pk")
        row = chance.choice(rows)
        try:
            with pfs.writing(store) as txn:
                if chance.random() < 0.7:
                    commitsets.squash_commit(txn, row)
                else:
                    commitsets.drop_commit(txn, rows[-1])
        except PachError:
            pass
        check(store)
        commit(store, chance)
        check(store)


def test_trees_stay_closed_for_other_paths(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        with Modification(store) as modification, pfs.writing(store) as txn:
            modification.append(f"/many/{i}", b"x")
            modify_file(
                txn,
                pfs_pb2.Commit(repo=refs.repo_pb(REPO), branch=refs.branch_pb(Branch(REPO, "master"))),
                modification,
            )
    opened: list[int] = []
    compare = history._compare
    monkeypatch.setattr(history, "_compare", lambda txn, pk, *rest: opened.append(pk) or compare(txn, pk, *rest))
    with store.read() as txn:
        head = refs.resolve_commit(txn, (REPO, "master"))
        assert sum(s.changed for s in history.search(txn, head.pk, "/many/7")) == 1
        assert len(opened) == 1
        for other in ("/many", "/many/", "many/7", "/"):
            assert not any(s.changed for s in history.search(txn, head.pk, other)), "only files have a history"


def test_a_step_of_many_paths_is_compared(store: Store) -> None:
    for count in (steps.LIMIT + 1, 1):
        with Modification(store) as modification, pfs.writing(store) as txn:
            for i in range(count):
                modification.append(f"/{i}", b"x")
            modify_file(
                txn,
                pfs_pb2.Commit(repo=refs.repo_pb(REPO), branch=refs.branch_pb(Branch(REPO, "master"))),
                modification,
            )
    with store.read() as txn:
        assert txn.db.execute("SELECT count(*) FROM step").fetchone()[0] == 1
        head = refs.resolve_commit(txn, (REPO, "master"))
        assert [s.changed for s in history.search(txn, head.pk, "/0")] == [True, True]
        assert [s.changed for s in history.search(txn, head.pk, "/7")] == [False, True]


def test_what_is_written_again_or_was_not_there_to_delete_is_in_the_history(store: Store) -> None:
    for steps_ in (("put /a", "put /b"), ("put /a", "delete /none"), ("add /b",), ("put /c",)):
        with Modification(store) as modification, pfs.writing(store) as txn:
            for kind, path in (step.split() for step in steps_):
                if kind != "add":
                    modification.delete(path)
                if kind != "delete":
                    modification.append(path, b"x" if kind == "put" else b"")
            modify_file(
                txn,
                pfs_pb2.Commit(repo=refs.repo_pb(REPO), branch=refs.branch_pb(Branch(REPO, "master"))),
                modification,
            )
    with store.read() as txn:
        head = refs.resolve_commit(txn, (REPO, "master"))
        for path, changed in (("/a", "0011"), ("/b", "0101"), ("/c", "1000"), ("/none", "0010"), ("/x", "0000")):
            assert "".join(str(int(s.changed)) for s in history.search(txn, head.pk, path)) == changed, path
    with pfs.writing(store) as txn:
        repos.delete_repo(txn, REPO)
        assert not txn.db.execute("SELECT 1 FROM idle").fetchone()
