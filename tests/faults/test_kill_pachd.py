"""kill -9 of pachd at random moments: nothing acknowledged is lost, nothing is half there, jobs end all the same."""

import threading
import time
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.faults import helpers
from tests.processes import Pachd, running


class Writer(threading.Thread):
    """Writes one batch after another and remembers which were acknowledged. Every batch writes one number into
    several files, so that a half batch shows as unequal numbers."""

    FILES = 6

    def __init__(self, address: str, repo: str, first: int, large: bool) -> None:
        super().__init__(daemon=True)
        self.address, self.repo, self.first, self.large = address, repo, first, large
        self.acknowledged = first - 1
        self.sent = first - 1
        self.unexpected: Exception | None = None

    def batch(self, number: int) -> list[tuple[str, bytes]]:
        stamp = b"%08d" % number
        size = 300_000 if self.large else 1
        same = [(f"/same/{i}", stamp * size if i == 0 else stamp) for i in range(self.FILES)]
        return [*same, (f"/log/{number}", stamp)]

    def run(self) -> None:
        try:
            with Client(self.address, timeout=30) as client:
                for number in range(self.first, self.first + 100_000):
                    self.sent = number
                    helpers.put(client, self.repo, self.batch(number))
                    self.acknowledged = number
        except RpcError as e:
            if e.code.name not in ("UNAVAILABLE", "CANCELLED", "UNKNOWN"):
                self.unexpected = e
        except Exception as e:
            self.unexpected = e


@pytest.mark.timeout(900)
@pytest.mark.parametrize("large", [False, True], ids=["small files", "packed files"])
def test_writing(tmp_path: Path, large: bool) -> None:
    chance = helpers.chance()
    server = Pachd(tmp_path / "data")
    number = 0
    with running(server):
        with Client(server.address, timeout=30) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
        for last in (False,) * 5 + (True,):
            writer = Writer(server.address, "labels", number + 1, large)
            writer.start()
            time.sleep(chance.uniform(0.05, 1.0))
            while last and not number and not writer.acknowledged and writer.is_alive():
                time.sleep(0.01)
            server.kill()
            writer.join(60)
            assert not writer.is_alive() and writer.unexpected is None, writer.unexpected
            checked = server.fsck()
            assert checked.returncode == 0, checked.stdout + checked.stderr
            server.start()
            with Client(server.address, timeout=60) as client:
                if writer.sent == 0:
                    continue
                number = check(client, writer)
        assert number > 0, "the server never acknowledged anything"


def check(client: Client, writer: Writer) -> int:
    """The number that the head holds: the last acknowledged one, or the one that was under way."""
    infos = helpers.commits(client, "labels")
    assert all(i.HasField("finished") for i in infos), "a write to a branch left an open commit behind"
    if not infos:  # killed before its first write: on a slow machine
        assert writer.acknowledged == 0
        return 0
    if writer.acknowledged < writer.first and not infos[0].details.size_bytes and writer.first == 1:
        return 0
    seen = {helpers.get(client, "labels", f"/same/{i}")[:8] for i in range(writer.FILES)}
    assert len(seen) == 1, f"half a batch is there: {seen}"
    number = int(seen.pop())
    assert writer.acknowledged <= number <= writer.sent
    whole = helpers.get(client, "labels", "/same/0")
    assert whole == writer.batch(number)[0][1]
    assert set(helpers.paths(client, "labels", "/log/*")) == {f"/log/{n}" for n in range(1, number + 1)}
    return number


@pytest.mark.timeout(900)
def test_an_open_commit_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    chance = helpers.chance()
    server = Pachd(tmp_path / "data")
    with running(server):
        with Client(server.address, timeout=30) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
            branch = pfs_pb2.Branch(repo=helpers.repo_of("labels"), name="master")
            commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch))
            count = chance.randrange(5, 60)
            for n in range(count):
                helpers.put(client, "labels", [(f"/{n}", b"%d" % n)])
        server.kill()
        server.start()
        with Client(server.address, timeout=30) as client:
            client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
            assert helpers.finished(client, "labels").commit.id == commit.id
            assert set(helpers.paths(client, "labels")) == {f"/{n}" for n in range(count)}
            assert helpers.get(client, "labels", f"/{count - 1}") == b"%d" % (count - 1)
        server.stop()
        assert server.fsck().returncode == 0


@pytest.mark.timeout(900)
def test_running_jobs(tmp_path: Path) -> None:
    """Two pipelines in a row; pachd dies several times while they work; both jobs end well, each datum counted once."""
    chance = helpers.chance()
    server = Pachd(tmp_path / "data")
    count = 24
    with running(server):
        with Client(server.address, timeout=60) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("items")))
            helpers.put(client, "items", [(f"/{n:03d}", b"%d" % n) for n in range(count)])
            for name, source, tail in (("first", "items", "one"), ("second", "first", "two")):
                copy = f"for f in /pfs/{source}/*; do sleep 0.1; (cat $f; echo {tail}) >/pfs/out/${{f##*/}}; done"
                client.pps.CreatePipeline(
                    pps_pb2.CreatePipelineRequest(
                        pipeline=pps_pb2.Pipeline(project=helpers.PROJECT, name=name),
                        transform=pps_pb2.Transform(cmd=["sh"], stdin=[copy]),
                        input=pps_pb2.Input(pfs=pps_pb2.PFSInput(project="default", repo=source, glob="/*")),
                    )
                )
            jobs = {name: helpers.commits(client, name)[0].commit.id for name in ("first", "second")}
        for _ in range(4):
            time.sleep(chance.uniform(0.1, 1.2))
            server.kill()
            server.start()
        with Client(server.address, timeout=120) as client:
            for name, job_id in jobs.items():
                job = pps_pb2.Job(pipeline=pps_pb2.Pipeline(project=helpers.PROJECT, name=name), id=job_id)
                info = client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, wait=True), timeout=120)
                assert pps_pb2.JobState.Name(info.state) == "JOB_SUCCESS", info.reason
                assert (info.data_total, info.data_failed) == (count, 0)
                assert info.data_processed + info.data_skipped == count
            for n in range(count):
                assert helpers.get(client, "second", f"/{n:03d}").split() == [b"%done" % n, b"two"]
            assert len(helpers.paths(client, "second")) == count
        assert server.stop() == 0
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_second_pachd_on_the_folder_is_refused(tmp_path: Path) -> None:
    first = Pachd(tmp_path / "data")
    with running(first):
        second = Pachd(tmp_path / "data", log=tmp_path / "second.log")
        assert second.spawn().wait(240) == 1
        said = second.text()
        assert str(tmp_path / "data") in said and "pachd" in said and "Traceback" not in said
        with Client(first.address, timeout=60) as client:  # the first one goes on
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("still-here")))
    first.start()  # and a killed one's folder is free again
    first.kill()
