"""Branches connected, written to and deleted at random, held against a model of plain dicts."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pachd import pfs
from pachd.errors import PachError
from pachd.pfs import branches, commits, commitsets, refs, repos
from pachd.store import Txn
from pachd.types import Branch, Commit, Repo
from tests.pfs_graph.conftest import open_store

NAMES = ("a", "b", "c", "d")
REPOS = {name: Repo("default", name) for name in NAMES}
MASTER = {name: Branch(REPOS[name], "master") for name in NAMES}
name = st.sampled_from(NAMES)
Key = tuple[str, str]  # repo, commit ID


class Graph(RuleBasedStateMachine):
    """Four repos with a branch `master` each.

    The model: `sources` (branch: direct provenance), `line` (branch: commits, root first), `open`, `finishing`, and
    `reads` (commit: what it was made from).
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(Path(self.folder.name) / "data")
        self.sources: dict[str, list[str]] = {}
        self.line: dict[str, list[str]] = {n: [] for n in NAMES}
        self.open: set[Key] = set()
        self.finishing: set[Key] = set()
        self.reads: dict[Key, set[Key]] = {}
        with pfs.writing(self.store) as txn:
            for repo in REPOS.values():
                repos.create_repo(txn, repo)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def write(self, fn: Callable[[Txn], Any]) -> tuple[Any, str]:
        """Run `fn` in a transaction; returns its result, and the error's text or ""."""
        try:
            with pfs.writing(self.store) as txn:
                return fn(txn), ""
        except PachError as error:
            return None, str(error)

    def above(self, n: str) -> set[str]:
        found: set[str] = set()
        todo = list(self.sources.get(n, ()))
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += self.sources.get(each, ())
        return found

    def below(self, n: str) -> set[str]:
        return {each for each in NAMES if n in self.above(each)}

    def read_by_set(self, id: str) -> set[Key]:
        """All commits in the provenance of a commit set."""
        found: set[Key] = set()
        todo = [each for key, reads in self.reads.items() if key[1] == id for each in reads]
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += self.reads[each]
        return found

    def add(self, n: str, id: str, is_open: bool) -> None:
        self.line[n].append(id)
        self.reads[n, id] = {(s, self.line[s][-1]) for s in self.sources.get(n, ())}
        if is_open:
            self.open.add((n, id))

    def propagate(self, n: str, id: str) -> None:
        for each in sorted(self.below(n), key=lambda b: len(self.above(b))):
            self.add(each, id, True)

    @rule(n=name)
    def start(self, n: str) -> None:
        commit, error = self.write(lambda txn: commits.start_commit(txn, MASTER[n]))
        if self.line[n] and (n, self.line[n][-1]) in self.open:
            assert error.endswith(f"parent commit {Commit(REPOS[n], self.line[n][-1])} has not been finished")
        elif self.sources.get(n):
            assert error.endswith(f"cannot start a commit on an output branch: {MASTER[n]}")
        else:
            assert not error
            self.sources.setdefault(n, [])
            self.add(n, commit.id, True)
            self.propagate(n, commit.id)

    @rule(n=name, data=st.data())
    def finish(self, n: str, data: Any) -> None:
        if not self.line[n]:
            return
        id = data.draw(st.sampled_from(self.line[n]))
        _, error = self.write(lambda txn: commits.finish_commit(txn, Commit(REPOS[n], id)))
        if (n, id) not in self.open:
            assert error == f"commit {Commit(REPOS[n], id)} has already finished"
            return
        assert not error
        self.open.remove((n, id))
        self.finishing.add((n, id))
        for each in self.line[n]:  # a commit is finished once all before it are
            if (n, each) in self.open:
                break
            self.finishing.discard((n, each))

    @rule(n=name, sources=st.lists(name, unique=True, max_size=3))
    def connect(self, n: str, sources: list[str]) -> None:
        provenance = [MASTER[s] for s in sources]
        _, error = self.write(lambda txn: branches.create_branch(txn, MASTER[n], provenance=provenance))
        if n in sources:
            assert error == f"repo {REPOS[n]} cannot be in the provenance of its own branch"
            return
        if any(s in self.below(n) for s in sources):
            assert "cycle detected" in error
            return
        assert not error
        with self.store.read() as txn:
            id = branches.inspect_branch(txn, MASTER[n]).head.id
        known, changed = n in self.sources, set(self.sources.get(n, ())) != set(sources)
        for s in sources:
            if s not in self.sources:
                self.sources[s] = []
                self.add(s, id, False)
        self.sources[n] = sources
        if not known or (changed and sources):
            self.add(n, id, bool(sources))
            self.propagate(n, id)

    @rule(n=name)
    def delete_branch(self, n: str) -> None:
        _, error = self.write(lambda txn: branches.delete_branch(txn, MASTER[n]))
        direct = [each for each in NAMES if n in self.sources.get(each, ())]
        if n not in self.sources:
            assert "not found" in error
        elif direct:
            assert all(str(MASTER[each]) in error for each in direct)
            assert "cannot be deleted because it's in the direct provenance of" in error
        else:
            assert not error
            del self.sources[n]
            self.line[n] = []
            self.open = {each for each in self.open if each[0] != n}
            self.finishing = {each for each in self.finishing if each[0] != n}

    @invariant()
    def branches_are_as_the_model_says(self) -> None:
        with self.store.read() as txn:
            assert {i.branch.repo.name for i in branches.list_branches(txn)} == set(self.sources)
            for n, sources in self.sources.items():
                info = branches.inspect_branch(txn, MASTER[n])
                assert info.head.id == self.line[n][-1]
                assert {b.repo.name for b in info.direct_provenance} == set(sources)
                assert {b.repo.name for b in info.provenance} == self.above(n)
                assert {b.repo.name for b in info.subvenance} == self.below(n)

    @invariant()
    def commits_are_as_the_model_says(self) -> None:
        with self.store.read() as txn:
            for n in NAMES:
                for position, id in enumerate(self.line[n]):
                    info = commits.commit_info(txn, refs.resolve_commit(txn, (REPOS[n], id)))
                    assert info.parent_commit.id == (self.line[n][position - 1] if position else "")
                    assert {(c.repo.name, c.id) for c in info.direct_provenance} == self.reads[n, id]
                    assert info.HasField("finished") == ((n, id) not in self.open | self.finishing)
                    assert info.HasField("finishing") == ((n, id) not in self.open)
                    for source, _ in self.reads[n, id]:  # the set's ID names what it read, where it has no commit
                        alias = refs.resolve_commit(txn, (REPOS[source], id))
                        own = (source, id) in self.reads
                        assert alias.id == id if own else (source, alias.id) in self.read_by_set(id)

    @invariant()
    def commit_sets_are_sorted(self) -> None:
        with self.store.read() as txn:
            for found in commitsets.list_commit_sets(txn):
                order = [(c.commit.repo.name, c.commit.id) for c in found.commits]
                members = {key for key in self.reads if key[1] == found.commit_set.id}
                assert set(order) == members | self.read_by_set(found.commit_set.id)
                for key in order:
                    assert all(order.index(source) < order.index(key) for source in self.reads[key])


Graph.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestGraph = Graph.TestCase
