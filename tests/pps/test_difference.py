"""What a change says of the datums is what a look at all of them says."""

import random
from pathlib import Path

import pytest

from pachd.pfs import SCHEMA, commits, globs, modify, projects, read, refs, repos, writing
from pachd.pps import datums, difference
from pachd.proto import pps_pb2
from pachd.store import Store
from pachd.types import Branch, Repo

NAMES = ["x", "y-1", "y-2", "z~1", "w", "d/x", "d/y-1", "d/e/x", "d/e/q", "f/x", "f/w"]


def leaf(repo: str, glob: str, **more: object) -> pps_pb2.Input:
    name = more.pop("name", repo)
    pfs = pps_pb2.PFSInput(name=name, project="default", repo=repo, branch="master", glob=glob, **more)
    return pps_pb2.Input(pfs=pfs)


def both(glob: str, other: str, **more: object) -> list[pps_pb2.Input]:
    return [leaf("a", glob, **more), leaf("b", other, **more)]


NODES = {
    "files": leaf("a", "/**"),
    "top": leaf("a", "/*"),
    "all": leaf("a", "/"),
    "join": pps_pb2.Input(join=both("/(**)", "/(**).json", join_on="$1")),
    "outer": pps_pb2.Input(
        join=[leaf("a", "/(**)", join_on="${1}", outer_join=True), leaf("b", "/(**).json", join_on="$1")]
    ),
    "part": pps_pb2.Input(join=both("/*/@(?)*", "/*/(*).json", join_on="$1")),
    "group": pps_pb2.Input(group=both("/**/(*)", "/**/(*).json", group_by="$1")),
    "union": pps_pb2.Input(union=both("/**", "/**.json")),
    "cross": pps_pb2.Input(cross=both("/*", "/*.json")),
    "nested": pps_pb2.Input(
        union=[leaf("a", "/*", name="n"), pps_pb2.Input(join=both("/(**)", "/(**).json", join_on="$1"))]
    ),
}


class World:
    """Two repos whose files change at random; every step changes both in one commit set."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.store = Store.open(folder, SCHEMA)
        self.chance = random.Random(seed)
        with writing(self.store) as txn:
            projects.ensure_default(txn)
            for name in "ab":
                repos.create_repo(txn, Repo("default", name, "user"))
        self.files: dict[str, set[str]] = {"a": set(), "b": set()}

    def step(self, changes: int) -> str:
        with writing(self.store) as txn:
            for name, ending in (("a", ""), ("b", ".json")):
                branch = Branch(Repo("default", name, "user"), "master")
                commit = commits.start_commit(txn, branch)
                row = refs.resolve_commit(txn, (commit.repo, commit.id))
                with modify.Modification(self.store) as modification:
                    for _ in range(changes):
                        path = f"/{self.chance.choice(NAMES)}{ending}"
                        modification.delete(path)
                        if self.chance.random() < 0.6:
                            modification.append(path, self.chance.choice([b"1", b"2", b"3"]))
                    modification.apply(txn, row)
                commits.finish_commit(txn, commit)
        with self.store.read() as snapshot:
            assert not refs.resolve_commit(snapshot, (commit.repo, commit.id)).error
        return commit.id


def everything(txn, node: pps_pb2.Input, job: str) -> dict[str, datums.Datum]:
    def glob(leaf):
        row = refs.resolve_commit(txn, (datums.repo_of(leaf), job))
        return datums.Commit(row.repo, row.id), map(datums.found, read.View.of(txn, row).glob(leaf.glob))

    return {datum.id: datum for datum in datums.create(node, glob)}


@pytest.mark.parametrize("kind", NODES)
def test_it_agrees_with_a_look_at_everything(tmp_path: Path, kind: str) -> None:
    node = NODES[kind]
    for seed in range(4):
        world = World(tmp_path / str(seed), seed)
        old, known = world.step(12), 0
        for _ in range(12):
            new = world.step(world.chance.choice([0, 1, 1, 2, 5]))
            with world.store.read() as txn:
                before, after = everything(txn, node, old), everything(txn, node, new)
                try:
                    found = difference.affected(txn, node, old, new, 100)
                except difference.Unknown:
                    old = new
                    continue
                known += 1
                were, are = {d.id: d for d in found.old}, {d.id: d for d in found.new}
                assert were.keys() <= before.keys() and are.keys() <= after.keys()
                assert before.keys() - after.keys() <= were.keys() and after.keys() - before.keys() <= are.keys()
                assert are.keys() - were.keys() == after.keys() - before.keys()
                assert were.keys() - are.keys() == before.keys() - after.keys()
                for id, datum in are.items():
                    assert datum.files == after[id].files
                for id in before.keys() & after.keys():
                    if before[id].hash("") != after[id].hash(""):
                        assert id in are and id in were
            old = new
        world.store.close()
        assert known >= (1 if kind == "cross" else 12)


@pytest.mark.parametrize(
    ("pattern", "template", "key", "narrow"),
    [
        ("/(**)", "$1", "a/b.jpg", "/a/b.jpg"),
        ("/(*)/(*).json", "$2", "x(1)", "/(*)/x\\(1\\).json"),
        ("/@(a|b)-(*)", "${1}", "a", "/a-(*)"),
        ("/(a(b|c))*", "$1", "ab", "/ab*"),
    ],
)
def test_a_glob_for_one_key(pattern: str, template: str, key: str, narrow: str) -> None:
    assert difference.narrowed(pattern, template, key) == narrow
    assert globs.compile(narrow)


@pytest.mark.parametrize(
    ("pattern", "template"),
    [("/(*)", "$1-$1"), ("/(*)", "x"), ("/*(a|b)", "$1"), ("/(a(b|c))*", "$2"), ("/!(a)", "$1"), ("/[(](*)", "$1")],
)
def test_where_there_is_none(pattern: str, template: str) -> None:
    with pytest.raises(difference.Unknown):
        difference.narrowed(pattern, template, "a")


def test_a_change_too_large_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_FEW", 3)
    world = World(tmp_path, 1)
    old, new = world.step(3), world.step(40)
    with world.store.read() as txn, pytest.raises(difference.Unknown):
        difference.affected(txn, NODES["files"], old, new, 10)
    world.store.close()
