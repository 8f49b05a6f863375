"""Batches of so many datums that their workers are processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import (
    Gate,
    counts,
    create,
    job_list,
    last_job,
    log_lines,
    names,
    new_repo,
    pipeline,
    read,
    wait_for,
)
from tests.processes import Pachd, running

COUNT = 1_050
PYTHON = """
import os
from pipelines.worker import each_datum

def work():
    path = os.environ["in"]
    name = os.path.basename(path)
    text = open(path).read()
    {body}
    with open("/pfs/out/" + name, "w") as out:
        out.write(text + " seen")

each_datum(work)
"""


def batch(client: Client, name: str, repo: str, body: str = "pass", **spec: object) -> None:
    transform = {"cmd": ["python3", "-c", PYTHON.replace("{body}", body)], "stdin": [], "datum_batching": True}
    transform |= spec.pop("transform", {})  # type: ignore[arg-type]
    source = {"pfs": {"repo": repo, "name": "in", "glob": "/*"}}
    spec = {"parallelism_spec": {"constant": 2}, **spec}
    create(client, name, "", transform=transform, input=source, **spec)


def workers(server: Pachd) -> list[psutil.Process]:
    """The processes of a pachd that are workers."""
    assert server.process is not None
    found = psutil.Process(server.process.pid).children()
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE and "pachd.pps.apart" in p.cmdline()]


def working(client: Client, name: str) -> pps_pb2.JobInfo:
    request = pps_pb2.ListJobRequest(pipeline=pipeline(name), details=True)
    return next(iter(client.pps.ListJob(request)))


@pytest.fixture(scope="module")
def many(client: Client) -> str:
    new_repo(client, "many", {f"/f{i:04d}": b"%d" % i for i in range(COUNT)})
    return "many"


def test_every_datum_is_worked_on_once(client: Client, many: str, pachd_process: Pachd) -> None:
    batch(client, "once", many, 'print("saw", text, flush=True)')
    assert wait_for(lambda: len(workers(pachd_process)) == 2, "two processes work")
    job = last_job(client, "once")
    assert (job.state, counts(job), job.reason) == (pps_pb2.JOB_SUCCESS, (COUNT, 0, 0, 0, COUNT), "")
    assert names(client, "once") == [f"/f{i:04d}" for i in range(COUNT)]
    for i in (0, 7, COUNT - 1):
        assert read(client, "once", f"/f{i:04d}") == b"%d seen" % i
    assert (job.stats.download_bytes, job.stats.upload_bytes) == (
        sum(len(str(i)) for i in range(COUNT)),
        sum(len(f"{i} seen") for i in range(COUNT)),
    )
    said = {line.message: [file.path for file in line.data] for line in log_lines(client, "once") if line.user}
    assert len([text for text in said if text.startswith("saw ")]) == COUNT
    assert said["saw 17"] == ["/f0017"]
    assert workers(pachd_process) == []


def test_failed_and_recovered_datums_and_large_outputs(client: Client, many: str) -> None:
    body = 'assert text not in ("3", "4"); text = text * (6 << 20) if text == "5" else text'
    handler = {"err_cmd": ["sh"], "err_stdin": ["test -e /pfs/in/f0003"]}
    batch(client, "mixed", many, body, transform=handler, datum_tries=2)
    job = last_job(client, "mixed")
    assert (job.state, counts(job)[1:]) == (pps_pb2.JOB_FAILURE, (0, 1, 1, COUNT))
    failed = [d for d in client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job.job)) if d.state == pps_pb2.FAILED]
    assert [file.file.path for datum in failed for file in datum.data] == ["/f0004"]
    assert read(client, "mixed", "/f0005") == b"5" * (6 << 20) + b" seen"
    assert "/f0003" not in names(client, "mixed")


def test_no_datum_waits_for_a_slow_one_which_can_be_seen_and_begun_anew(client: Client, many: str) -> None:
    with Gate() as gate:
        batch(client, "slow", many, f'if text == "500": {gate.python}')
        gate.arrived()
        wait_for(lambda: job_list(client, "slow")[0].data_processed == COUNT - 1, "all others are done")
        seen = [w.datum_status for w in working(client, "slow").details.worker_status if w.datum_status.data]
        assert [file.path for status in seen for file in status.data] == ["/f0500"]
        client.pps.RestartDatum(pps_pb2.RestartDatumRequest(job=working(client, "slow").job, data_filters=["/f0500"]))
        gate.arrived(2)
        gate.open()
        assert counts(last_job(client, "slow")) == (COUNT, 0, 0, 0, COUNT)


def test_a_stopped_job_ends_with_all_its_processes(client: Client, many: str, pachd_process: Pachd) -> None:
    with Gate() as gate:
        batch(client, "stopped", many, gate.python)
        gate.arrived(2)
        client.pps.StopJob(pps_pb2.StopJobRequest(job=working(client, "stopped").job))
        assert last_job(client, "stopped").state == pps_pb2.JOB_KILLED
        wait_for(lambda: workers(pachd_process) == [], "the processes have ended")


def test_a_program_that_is_not_there_fails_each_datum(client: Client, many: str) -> None:
    batch(client, "missing", many, transform={"cmd": ["/no/such/program"]}, datum_tries=1)
    job = last_job(client, "missing")
    assert (job.state, counts(job)) == (pps_pb2.JOB_FAILURE, (0, 0, COUNT, 0, COUNT))
    said = {line.message.partition("): ")[2] for line in log_lines(client, "missing") if "failed (try" in line.message}
    assert said == {"fork/exec /no/such/program: no such file or directory"}


def test_a_process_that_is_killed_is_replaced(client: Client, many: str, pachd_process: Pachd) -> None:
    with Gate() as gate:
        batch(client, "killed", many, f'if text == "700": {gate.python}')
        gate.arrived()
        wait_for(lambda: job_list(client, "killed")[0].data_processed == COUNT - 1, "all others are done")
        for process in workers(pachd_process):
            process.kill()
        gate.open()
        job = last_job(client, "killed")
        assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (COUNT, 0, 0, 0, COUNT))
        assert read(client, "killed", "/f0700") == b"700 seen"


def test_an_input_that_is_deleted_meanwhile(client: Client) -> None:
    """Nothing is written down that refers to what nobody keeps any more."""
    new_repo(client, "gone", {f"/f{i:04d}": b"%d" % i for i in range(COUNT)})
    with Gate() as gate:
        batch(client, "orphan", "gone", f'if text == "900": {gate.python}')
        gate.arrived()
        client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=pfs_pb2.Repo(name="gone", type="user"), force=True))
        gate.open()
        job = last_job(client, "orphan")
        assert job.state == pps_pb2.JOB_FAILURE
        assert "repo default/gone not found" in job.reason
    fsck = list(client.pfs.Fsck(pfs_pb2.FsckRequest()))
    assert [answer.error for answer in fsck if answer.error] == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pachd]:
    with running(Pachd(tmp_path / "data")) as server:
        yield server


def test_a_kill_of_pachd_ends_its_workers_and_the_next_one_goes_on(server: Pachd) -> None:
    with Gate() as gate:
        with Client(server.address) as client:
            new_repo(client, "in", {f"/f{i:04d}": b"%d" % i for i in range(COUNT)})
            batch(client, "p", "in", f'if text == "800": {gate.python}')
            gate.arrived()
            wait_for(lambda: job_list(client, "p")[0].data_processed >= 500, "some are written down")
            old = workers(server)
            inside = [child for process in old for child in process.children(recursive=True)]
            assert len(old) == 2 and inside
        server.kill()
        for process in (*old, *inside):
            process.wait(60)
        assert server.fsck().returncode == 0
        gate.open()
        server.start()
        with Client(server.address) as client:
            job = last_job(client, "p")
            assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (COUNT, 0, 0, 0, COUNT))
            assert len(names(client, "p")) == COUNT


def test_pachd_ends_at_once_while_workers_work(server: Pachd) -> None:
    with Gate() as gate, Client(server.address) as client:
        new_repo(client, "in", {f"/f{i:04d}": b"%d" % i for i in range(COUNT)})
        batch(client, "p", "in", gate.python)
        gate.arrived(2)
        old = workers(server)
        assert len(old) == 2
        assert server.stop() == 0
        for process in old:
            process.wait(60)
    assert "Traceback" not in server.text()
