"""Random histories against a model: a branch is a list of commits, a commit a dict of files."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pachd.pfs import branches, commits, commitsets, refs, repos, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.types import Branch, Repo
from tests.pfs_graph.conftest import open_store

SOURCE, SINK = Repo("default", "source"), Repo("default", "sink")
FILES = st.sampled_from(["/a", "/b", "/d/c", "/d/e"])


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(Path(self.folder.name) / "data")
        with writing(self.store) as txn:
            repos.create_repo(txn, SOURCE)
            repos.create_repo(txn, SINK)
            branches.create_branch(txn, Branch(SINK, "master"), provenance=[Branch(SOURCE, "master")])
        with self.store.read() as txn:
            first = refs.resolve_commit(txn, (SOURCE, "master")).id
        self.line: list[tuple[str, dict[str, bytes]]] = [(first, {})]  # ID and files, oldest first
        self.sets = 1  # commits of the sink

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def write(self, change: Any) -> None:
        with Modification(self.store) as modification:
            change(modification)
            target = pfs_pb2.Commit(repo=refs.repo_pb(SOURCE), branch=refs.branch_pb(Branch(SOURCE, "master")))
            with writing(self.store) as txn:
                modify_file(txn, target, modification)
                id = refs.resolve_commit(txn, (SOURCE, "master")).id
        self.line.append((id, dict(self.line[-1][1])))
        self.sets += 1

    @rule(path=FILES, data=st.binary(max_size=8))
    def append(self, path: str, data: bytes) -> None:
        self.write(lambda m: m.append(path, data))
        files = self.line[-1][1]
        files[path] = files.get(path, b"") + data

    @rule(path=FILES)
    def delete(self, path: str) -> None:
        self.write(lambda m: m.delete(path))
        self.line[-1][1].pop(path, None)

    @rule()
    def finish_sink(self) -> None:
        with writing(self.store) as txn:
            for row in refs.commit_rows(txn, "r.name='sink' AND c.state=? ORDER BY c.pk", (pfs_pb2.STARTED,)):
                commits.finish_commit(txn, row.key)

    @precondition(lambda self: len(self.line) > 2)
    @rule(data=st.data())
    def go_back(self, data: Any) -> None:
        """Move the head to an ancestor: the line is shorter, and the sink has one more commit."""
        to = data.draw(st.integers(0, len(self.line) - 2))
        with writing(self.store) as txn:
            branches.create_branch(
                txn, Branch(SOURCE, "master"), refs.resolve_commit(txn, (SOURCE, self.line[to][0])).key
            )
        del self.line[to + 1 :]
        self.sets += 1

    @invariant()
    def same_files(self) -> None:
        with self.store.read() as txn:
            for back, (id, files) in enumerate(reversed(self.line)):
                row = refs.resolve_commit(txn, (SOURCE, f"master^{back}" if back else "master"))
                assert row.id == id
                view = View.of(txn, row)
                found = {e.path: b"".join(view.read(e)) for e in view.glob("/**") if not e.is_dir}
                assert found == files

    @invariant()
    def the_sink_follows(self) -> None:
        with self.store.read() as txn:
            head = refs.resolve_commit(txn, (SINK, "master"))
            info = commits.commit_info(txn, head)
            assert [p.id for p in info.direct_provenance] == [self.line[-1][0]]
            assert (
                txn.db.execute("SELECT count(*) FROM commits WHERE repo_pk=?", (head.repo_pk,)).fetchone()[0]
                == self.sets
            )
            members = [m.commit.repo.name for m in commitsets.inspect_commit_set(txn, head.id)]
            assert members == ["source", "sink"]


History.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
