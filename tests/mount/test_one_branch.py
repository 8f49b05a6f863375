"""Several that commit to one branch at the same time: all of it arrives, and nobody ends what another has begun."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mount_server import errors
from mount_server.pachd_source import PachdSource
from mount_server.source import CommitInfo, CommitRef
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.mount.conftest import World
from tests.processes import Pachd


def test_two_mounts_of_a_branch_commit_at_once(quiet_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, source = quiet_world, quiet_world.source
    source.make_repo("labels", {"a": b"1"})
    for name in ("one", "two"):
        world.mount(name, "labels")
    world.restart()  # restored mounts too
    begun, asked = threading.Event(), threading.Event()
    fill = source.fill

    def slow_fill(ref: CommitRef, changes: object) -> None:
        begun.set()
        assert asked.wait(60)
        fill(ref, changes)  # type: ignore[arg-type]

    def second() -> dict[str, object]:
        assert begun.wait(60)
        threading.Timer(0.2, asked.set).start()  # the other is in the middle of its commit until then
        return world.commit("two")

    monkeypatch.setattr(source, "fill", slow_fill)
    world.mounts.get("one").stage([("x", b"one")])
    world.mounts.get("two").stage([("y", b"two")])
    with ThreadPoolExecutor(2) as pool:
        later = pool.submit(second)
        assert world.commit("one")["commit"]
        assert later.result()["commit"]
    assert source.files("labels") == {"a": b"1", "x": b"one", "y": b"two"}


def test_a_refused_commit_leaves_that_of_another_alone(quiet_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, source = quiet_world, quiet_world.source
    source.make_repo("labels", {"a": b"1"})
    world.mount("labels")
    world.mounts.get("labels").stage([("b", b"2")])
    start, theirs = source.start, list[CommitInfo]()

    def too_late(project: str, repo: str, branch: str, description: str) -> CommitInfo:
        theirs.append(start(project, repo, branch, description))  # of the same description, at the same time
        return start(project, repo, branch, description)

    monkeypatch.setattr(source, "start", too_late)
    with pytest.raises(errors.HeadMoved):
        world.commit("labels", message="by hand")
    monkeypatch.undo()
    with pytest.raises(errors.Conflict):  # it is open still
        world.commit("labels", message="by hand")
    source.finish(CommitRef("default", "labels", theirs[0].id), "by hand")
    assert world.commit("labels", message="by hand")["commit"]
    assert [c.info.id for c in source.history_of("labels")][1] == theirs[0].id
    assert source.files("labels") == {"a": b"1", "b": b"2"}


def test_pachd_has_an_open_commit(pachd_process: Pachd) -> None:
    repo = pfs_pb2.Repo(name="opened", type="user", project=pfs_pb2.Project(name="default"))
    with Client(pachd_process.address) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        branch = pfs_pb2.Branch(repo=repo, name="master")
        commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch))
        source = PachdSource(pachd_process.address)
        try:
            with pytest.raises(errors.HeadMoved, match="somebody else has begun a commit on default/opened@master"):
                source.start("default", "opened", "master", "")
            client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
            assert source.start("default", "opened", "master", "").parent == commit.id
        finally:
            source.close()
