"""A pachd that collects all the time while clients write, squash, drop, keep file sets and run pipelines."""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.faults import helpers
from tests.processes import Pachd, running

SECONDS = 12


def squash_some(client: Client, repo: str, chance: random.Random) -> None:
    """Takes an old commit that nothing depends on out of history."""
    old = helpers.commits(client, repo)[2:]
    if old:
        target = pfs_pb2.SquashCommitSetRequest(commit_set=pfs_pb2.CommitSet(id=chance.choice(old).commit.id))
        try:
            client.pfs.SquashCommitSet(target, timeout=60)
        except RpcError as refused:  # an AUTO commit of the same set, say
            if "cannot" not in str(refused):
                raise


def writer(server: Pachd, repo: str, seed: int, model: dict[str, bytes], stop: threading.Event) -> None:
    chance = random.Random(seed)
    with Client(server.address, timeout=60) as client:
        while not stop.is_set():
            path = f"/{chance.randrange(20)}"
            data = os.urandom(chance.choice([10, 2000, 90_000, 5_000_000]))
            helpers.put(client, repo, [(path, data)])
            model[path] = data
            if chance.random() < 0.5:
                squash_some(client, repo, chance)
            if chance.random() < 0.2:
                read = chance.choice(sorted(model))
                assert helpers.get(client, repo, read) == model[read]


def file_sets(server: Pachd, stop: threading.Event) -> None:
    """Made, let go of for a moment, added to an open commit that is dropped or finished."""
    with Client(server.address, timeout=60) as client:
        branch = pfs_pb2.Branch(repo=helpers.repo_of("sets"), name="master")
        while not stop.is_set():
            data = os.urandom(5_000_000)

            def requests(data: bytes = data) -> list[pfs_pb2.ModifyFileRequest]:
                file = pfs_pb2.AddFile(path="/set")
                file.raw.value = data
                return [pfs_pb2.ModifyFileRequest(add_file=file)]

            made = client.pfs.CreateFileSet(iter(requests()), timeout=60)
            time.sleep(0.1)
            commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch))
            client.pfs.ClearCommit(pfs_pb2.ClearCommitRequest(commit=commit))
            adding = pfs_pb2.AddFileSetRequest(commit=commit, file_set_id=made.file_set_id)
            deleting = pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path="/set"))
            client.pfs.ModifyFile(iter([pfs_pb2.ModifyFileRequest(set_commit=commit), deleting]), timeout=60)
            client.pfs.AddFileSet(adding, timeout=60)
            client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
            assert helpers.get(client, "sets", "/set", commit.id) == data


def trying(failures: list[BaseException], run: Callable[..., None], *args: object) -> threading.Thread:
    def call() -> None:
        try:
            run(*args)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread


@pytest.mark.timeout(900)
def test_nothing_needed_is_collected(tmp_path: Path) -> None:
    seed = helpers.chance().randrange(1 << 30)
    server = Pachd(tmp_path / "data")
    server.command += ["--gc-interval", "0.05", "--log-level", "info"]
    models: dict[str, dict[str, bytes]] = {"one": {}, "two": {}, "piped": {}}
    with running(server), Client(server.address, timeout=60) as client:
        for repo in (*models, "sets"):
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of(repo)))
        client.pps.CreatePipeline(
            pps_pb2.CreatePipelineRequest(
                pipeline=pps_pb2.Pipeline(project=helpers.PROJECT, name="copy"),
                transform=pps_pb2.Transform(cmd=["sh"], stdin=["cp /pfs/piped/* /pfs/out/"]),
                input=pps_pb2.Input(pfs=pps_pb2.PFSInput(project="default", repo="piped", glob="/*")),
            )
        )
        stop, failures = threading.Event(), list[BaseException]()
        threads = [
            trying(failures, writer, server, repo, seed + n, model, stop)
            for n, (repo, model) in enumerate(models.items())
        ]
        threads.append(trying(failures, file_sets, server, stop))
        stop.wait(SECONDS)
        stop.set()
        for thread in threads:
            thread.join(120)
        assert not failures, failures
        helpers.finished(client, "copy")
        for repo, model in (*models.items(), ("copy", models["piped"])):
            assert {path: helpers.get(client, repo, path) for path in helpers.paths(client, repo)} == model, repo
        assert list(client.pfs.Fsck(pfs_pb2.FsckRequest(), timeout=60)) == []
        assert server.text().count("collected Collected(") >= 3, server.text()[-2000:]
        server.stop()
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.timeout(900)
def test_killed_while_it_collects(tmp_path: Path) -> None:
    """kill -9 at random moments: what was acknowledged is there, fsck finds nothing, and packs that nobody names go."""
    chance = helpers.chance()
    server = Pachd(tmp_path / "data")
    server.command += ["--gc-interval", "0.02"]
    models: dict[str, dict[str, bytes]] = {"one": {}, "two": {}}
    with running(server):
        with Client(server.address, timeout=60) as client:
            for repo in models:
                client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of(repo)))
        for _ in range(5):
            stop, failures = threading.Event(), list[BaseException]()
            threads = [
                trying(failures, writer, server, repo, chance.randrange(1 << 30), model, stop)
                for repo, model in models.items()
            ]
            time.sleep(chance.uniform(0.5, 2.5))
            server.kill()
            stop.set()
            for thread in threads:
                thread.join(60)
            refused = [e for e in failures if not isinstance(e, RpcError)]
            assert not refused, refused
            checked = server.fsck()
            assert checked.returncode == 0, checked.stdout + checked.stderr
            server.start()
            with Client(server.address, timeout=60) as client:
                for repo, model in models.items():
                    there = (
                        {path: helpers.get(client, repo, path) for path in helpers.paths(client, repo)} if model else {}
                    )
                    differing = [path for path in there.keys() | model.keys() if there.get(path) != model.get(path)]
                    assert len(differing) <= 1, f"more than the write under way differs in {repo}: {differing}"
                    model.update(there)
        assert any(models.values())
