"""Repos, branches, commits and files in random order, held against a model: see `tests.pfs_graph.model`.

`HOWDAH_MACHINE_SECONDS` sets for how long (60).
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pachd import pfs
from pachd.errors import NotFound, PachError
from pachd.pfs import branches, check, collect, commits, commitsets, propagate, refs, repos
from pachd.pfs.diff import diff
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Repo
from tests.pfs_graph import model as m
from tests.pfs_graph.conftest import open_store

SECONDS = float(os.environ.get("HOWDAH_MACHINE_SECONDS", "60"))
REPOS, BRANCHES = ("a", "b", "c"), ("master", "dev")
PATHS = ("/a", "/b", "/d/a", "/d/b", "/d/e/f", "/d", "/long/way/down", "/d-", "/d0")
STATES = {pfs_pb2.STARTED: m.OPEN, pfs_pb2.FINISHING: m.FINISHING, pfs_pb2.FINISHED: m.FINISHED}

repo = st.sampled_from(REPOS)
key = st.tuples(repo, st.sampled_from(BRANCHES))
path = st.sampled_from(PATHS)
text = st.text("xyz", max_size=5)
change = st.one_of(
    st.tuples(st.just("append"), path, text),
    st.tuples(st.just("delete"), st.sampled_from([*PATHS, "/", "/d/", "/d/e/", "/long/"])),
)


def real_repo(name: str) -> Repo:
    return Repo("default", name)


def real_branch(key: m.Key) -> Branch:
    return Branch(real_repo(key[0]), key[1])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(Path(self.folder.name) / "data")
        self.model = m.Model()
        for name in REPOS:
            self.create_repo(name)

    def teardown(self) -> None:
        try:
            with self.store.read() as txn:
                assert list(check.check(txn)) == []
        finally:
            self.store.close()
            self.folder.cleanup()

    def both(self, real: Callable[[Txn], Any], model: Callable[[m.Model, str], Any]) -> None:
        """Do the same to both: both do it or both refuse, for the same reason."""
        error, id = "", ""
        try:
            with pfs.writing(self.store) as txn:
                id = propagate.commit_set_id(txn)
                real(txn)
        except PachError as err:
            error = str(err)
        after = copy.deepcopy(self.model)
        try:
            model(after, id)
        except m.Refused as refused:
            assert error and str(refused) in error, (error, refused)
            return
        assert not error, error
        self.model = after

    def commit(self, data: Any, where: Callable[[m.Commit], bool] = lambda _: True) -> m.Key | None:
        keys = [k for k, c in self.model.commits.items() if where(c)]
        return data.draw(st.sampled_from(keys)) if keys else None

    # -- changes ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.repos) < len(REPOS))
    @rule(name=repo)
    def create_repo(self, name: str) -> None:
        def model(after: m.Model, _id: str) -> None:
            if name in after.repos:
                raise m.Refused("already exists")
            after.repos.add(name)

        self.both(lambda txn: repos.create_repo(txn, real_repo(name)), model)

    @rule(name=repo, force=st.booleans(), sure=st.integers(0, 9))
    def delete_repo(self, name: str, force: bool, sure: int) -> None:
        if sure == 9:
            self.both(
                lambda txn: repos.delete_repo(txn, real_repo(name), force),
                lambda after, _id: after.delete_repo(name, force) if name in after.repos else None,
            )

    @rule(name=repo, names=st.lists(repo, unique=True, min_size=1, max_size=2))
    def connect(self, name: str, names: list[str]) -> None:
        """Have a branch depend on branches of other repos, as pipelines have it."""
        if name not in names and {name, *names} <= self.model.repos:
            key, sources = (name, "master"), [(each, "master") for each in names]
            self.both(
                lambda txn: branches.create_branch(
                    txn, real_branch(key), provenance=[real_branch(source) for source in sources]
                ),
                lambda after, id: after.create_branch(key, None, sources, id),
            )

    @rule(key=key, sources=st.lists(key, unique=True, max_size=2), data=st.data(), with_head=st.booleans())
    def create_branch(self, key: m.Key, sources: list[m.Key], data: Any, with_head: bool) -> None:
        if not {key[0], *(s[0] for s in sources)} <= self.model.repos or len({s[0] for s in sources}) < len(sources):
            return
        own = [k for k in self.model.commits if k[0] == key[0]]
        head = data.draw(st.sampled_from(own)) if with_head and own else None

        def real(txn: Txn) -> None:
            at = refs.resolve_commit(txn, (real_repo(head[0]), head[1])).key if head is not None else None
            branches.create_branch(txn, real_branch(key), at, [real_branch(s) for s in sources])

        self.both(real, lambda after, id: after.create_branch(key, head, sources, id))

    @rule(key=key, force=st.booleans(), sure=st.integers(0, 5))
    def delete_branch(self, key: m.Key, force: bool, sure: int) -> None:
        if sure == 5:
            self.both(
                lambda txn: branches.delete_branch(txn, real_branch(key), force),
                lambda after, _id: after.delete_branch(key, force),
            )

    @rule(key=key)
    def start_commit(self, key: m.Key) -> None:
        def model(after: m.Model, id: str) -> None:
            if key[0] not in after.repos:
                raise m.Refused(f"repo default/{key[0]} not found")
            after.start_commit(key, id)

        self.both(lambda txn: commits.start_commit(txn, real_branch(key)), model)

    @rule(key=key, changes=st.lists(change, min_size=1, max_size=4))
    def write(self, key: m.Key, changes: list[tuple[str, ...]]) -> None:
        if key[0] in self.model.repos:
            target = pfs_pb2.Commit(branch=refs.branch_pb(real_branch(key)))
            self._write(target, changes, lambda after, id: after.modify(key, changes, id))

    @rule(changes=st.lists(change, min_size=1, max_size=4), data=st.data())
    def write_by_id(self, changes: list[tuple[str, ...]], data: Any) -> None:
        at = self.commit(data)
        if at is not None:

            def model(after: m.Model, _id: str) -> None:
                if after.commits[at].state != m.OPEN:
                    raise m.Refused("has already finished")
                after.must_list(at, changes)
                after.commits[at].changes += changes

            self._write(pfs_pb2.Commit(repo=refs.repo_pb(real_repo(at[0])), id=at[1]), changes, model)

    def _write(
        self, target: pfs_pb2.Commit, changes: list[tuple[str, ...]], model: Callable[[m.Model, str], None]
    ) -> None:
        with Modification(self.store) as modification:
            for kind, name, *rest in changes:
                if kind == "append":
                    modification.append(name, rest[0].encode())
                else:
                    modification.delete(name)
            self.both(lambda txn: modify_file(txn, target, modification), model)

    @rule(key=key, data=st.data(), src=path, dst=path, append=st.booleans())
    def copy(self, key: m.Key, data: Any, src: str, dst: str, append: bool) -> None:
        at = self.commit(data, lambda c: c.state == m.FINISHED and not c.error)
        if at is None or key[0] not in self.model.repos:
            return
        found = {p: t for p, t in self.model.commits[at].files.items() if p == src or p.startswith(src + "/")}
        kind = "append" if append else "replace"
        changes = [(kind, dst + p[len(src) :], t.decode()) for p, t in sorted(found.items())]
        with self.store.read() as snapshot, Modification(self.store) as modification:
            row = refs.resolve_commit(snapshot, (real_repo(at[0]), at[1]))
            modification.copy(row, src, dst, append)
            target = pfs_pb2.Commit(branch=refs.branch_pb(real_branch(key)))
            self.both(
                lambda txn: modify_file(txn, target, modification),
                lambda after, id: after.modify(key, changes, id),
            )

    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        at = self.commit(data, lambda c: c.state == m.OPEN) or self.commit(data)
        if at is not None:
            self.both(
                lambda txn: commits.finish_commit(txn, refs.resolve_commit(txn, (real_repo(at[0]), at[1])).key),
                lambda after, _id: after.finish(at),
            )

    @rule()
    def finish_all(self) -> None:
        """Finish what is open, upstream first, as pipelines do."""
        for at in [k for k, c in self.model.commits.items() if c.state == m.OPEN]:
            self.both(
                lambda txn, at=at: commits.finish_commit(  # type: ignore[misc]
                    txn, refs.resolve_commit(txn, (real_repo(at[0]), at[1])).key
                ),
                lambda after, _id, at=at: after.finish(at),  # type: ignore[misc]
            )

    @rule(data=st.data(), squash=st.booleans())
    def remove_set(self, data: Any, squash: bool) -> None:
        at = self.commit(data)
        if at is None:
            return
        set_id = at[1]

        def model(after: m.Model, id: str) -> None:
            members = [k for k in after.commits if k[1] == set_id]
            if any(below[1] != set_id for member in members for below in after.below(member)):
                raise m.Refused("has subvenant commit sets")
            after.remove(members, id, squash)

        do = commitsets.squash_commit_set if squash else commitsets.drop_commit_set
        self.both(lambda txn: do(txn, set_id), model)

    @rule(data=st.data(), squash=st.booleans(), recursive=st.booleans())
    def remove_commit(self, data: Any, squash: bool, recursive: bool) -> None:
        at = self.commit(data)
        if at is None:
            return

        def model(after: m.Model, id: str) -> None:
            members = [at, *after.below(at)]
            if len(members) > 1 and not recursive:
                raise m.Refused("with subvenance without recursive")
            after.remove(members, id, squash)

        do = commitsets.squash_commit if squash else commitsets.drop_commit
        self.both(lambda txn: do(txn, refs.resolve_commit(txn, (real_repo(at[0]), at[1])), recursive), model)

    # -- what must hold --------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def differences(self, data: Any) -> None:
        one = self.commit(data, lambda c: c.state == m.FINISHED and not c.error)
        two = self.commit(data, lambda c: c.state == m.FINISHED and not c.error)
        if one is None or two is None:
            return
        new, old = self.model.commits[one].files, self.model.commits[two].files

        def content(files: m.Files, name: str) -> Any:
            """What a hash stands for: a directory's is made of its children's in order, without their names."""
            if not name.endswith("/"):
                return files.get(name)
            inside: dict[str, Any] = {}
            for path in sorted(p for p in files if p.startswith(name)):
                first, deeper, _ = path[len(name) :].partition("/")
                child = name + first + deeper
                inside[child] = content(files, child)
            return list(inside.values()) or None

        names = sorted({"/", *m.listing(new), *m.listing(old)})
        expected = [name for name in names if content(new, name) != content(old, name)]
        with self.store.read() as txn:
            views = [View.of(txn, refs.resolve_commit(txn, (real_repo(k[0]), k[1]))) for k in (one, two)]
            found = sorted((a or b).path for a, b in diff(*views, "/") if a is not None or b is not None)
            assert found == expected

    @rule(data=st.data(), name=path)
    def reads(self, data: Any, name: str) -> None:
        at = self.commit(data)
        if at is not None:
            with self.store.read() as txn:
                self.same_files(txn, at, name)

    @rule()
    def collect_garbage(self) -> None:
        """Takes nothing that anybody can see."""
        collect.garbage(self.store)

    @invariant()
    def heads_read_as_the_model_says(self) -> None:
        with self.store.read() as txn:
            for branch in self.model.branches.values():
                self.same_files(txn, branch.head, "/d")

    def same_files(self, txn: Snapshot, at: m.Key, name: str) -> None:
        files = self.model.files(at)
        row = refs.resolve_commit(txn, (real_repo(at[0]), at[1]))
        if files is None:
            with pytest.raises(PachError, match="unfinished"):
                View.of(txn, row)
            return
        view = View.of(txn, row)
        if m.collision(files):
            with pytest.raises(PachError, match="collision"):
                list(view.glob("/**"))
            return
        entries = list(view.glob("/**"))
        assert [e.path for e in entries] == m.listing(files)
        assert {e.path: b"".join(view.read(e)) for e in entries if not e.is_dir} == files
        assert [e.path for e in view.list("/")] == [p for p in m.listing(files) if p.strip("/").count("/") == 0]
        inside = [p for p in m.listing(files) if p == name or p.startswith(name + "/")]
        if not inside:
            with pytest.raises(NotFound):
                view.inspect(name)
        else:
            size = sum(len(t) for p, t in files.items() if p in inside)
            found = view.inspect(name)
            assert (found.path.rstrip("/"), found.size) == (name, size)
            assert [e.path for e in view.walk(name)] == inside

    @invariant()
    def branches_are_as_the_model_says(self) -> None:
        with self.store.read() as txn:
            found = {(i.branch.repo.name, i.branch.name): i for i in branches.list_branches(txn)}
            assert set(found) == set(self.model.branches)
            for key, branch in self.model.branches.items():
                info = found[key]
                assert (info.head.repo.name, info.head.id) == branch.head
                assert [(b.repo.name, b.name) for b in info.direct_provenance] == branch.sources
                assert {(b.repo.name, b.name) for b in info.provenance} == self.model.branches_above(key)
                assert {(b.repo.name, b.name) for b in info.subvenance} == self.model.branches_below(key)

    @invariant()
    def commits_are_as_the_model_says(self) -> None:
        with self.store.read() as txn:
            rows = refs.commit_rows(txn, "1 ORDER BY c.pk")
            assert {(row.repo.name, row.id) for row in rows} == set(self.model.commits)
            for row in rows:
                at = row.repo.name, row.id
                known = self.model.commits[at]
                info = commits.commit_info(txn, row)
                assert STATES[row.state] == known.state, at
                assert (row.branch, row.error) == (known.branch, known.error)
                assert info.origin.kind == (pfs_pb2.USER if known.origin == "USER" else pfs_pb2.AUTO)
                parent = (info.parent_commit.repo.name, info.parent_commit.id) if info.parent_commit.id else None
                assert parent == known.parent
                assert {(c.repo.name, c.id) for c in info.child_commits} == self.model.children(at)
                assert {(c.repo.name, c.id) for c in info.direct_provenance} == known.sources


@pytest.mark.timeout(SECONDS * 3 + 300)
def test_machine() -> None:
    few = settings(
        max_examples=6, stateful_step_count=80, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        run_state_machine_as_test(Machine, settings=few)
