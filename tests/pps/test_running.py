"""How jobs run: side by side, stopped, timed out, begun anew, in standby; and what a kill of pachd leaves."""

import random
import time
from pathlib import Path

import psutil
import pytest

from pachd.client import Client
from pachd.proto import pps_pb2
from tests.pps.helpers import (
    BATCH,
    Gate,
    counts,
    create,
    glob,
    last_job,
    names,
    new_repo,
    pipeline,
    put,
    read,
)
from tests.processes import Pachd, running


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def newest(client, name):
    return next(iter(client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline(name), details=True))))


def sleepers(seconds):
    found = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    return [line for line in found if line == ["sleep", seconds]]


def working(client, name):
    return until(lambda: newest(client, name) if newest(client, name).details.worker_status else None)


def test_two_jobs_at_once(client):
    new_repo(client, "par", {"/x": b"1"})
    with Gate() as gate:
        for name in ("left", "right"):
            create(client, name, gate.shell, glob("par"))
        gate.arrived(2)
    for name in ("left", "right"):
        assert last_job(client, name).state == pps_pb2.JOB_SUCCESS


@pytest.mark.parametrize("batched", [False, True])
def test_a_stopped_job_ends_at_once_with_all_its_processes(client, batched):
    seconds = str(random.SystemRandom().randrange(10**6, 10**9))  # by which the test knows its processes
    name = f"endless-{batched}".lower()
    new_repo(client, name, {"/x": b"1", "/y": b"2"})
    endless = BATCH.replace("data = open", "import time; time.sleep(1000); data = open")
    code = f"import subprocess\nsubprocess.Popen(['setsid', 'sleep', '{seconds}'])\n{endless}"
    transform = {"cmd": ["python3", "-c", code], "stdin": [], "datumBatching": True} if batched else {}
    create(client, f"{name}-p", f"sleep {seconds} & sleep {seconds}", glob(name), transform=transform,
           parallelismSpec={"constant": 2})  # fmt: skip
    working(client, f"{name}-p")
    until(lambda: len(sleepers(seconds)) == (2 if batched else 4))
    client.pps.StopJob(pps_pb2.StopJobRequest(job=newest(client, f"{name}-p").job, reason="enough"))
    until(lambda: not sleepers(seconds))
    job = last_job(client, f"{name}-p")
    assert (job.state, job.reason) == (pps_pb2.JOB_KILLED, "enough")
    put(client, name, {"/x": b"3"})
    until(lambda: newest(client, f"{name}-p").job.id != job.job.id)  # the next one begins by itself
    working(client, f"{name}-p")
    client.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=pipeline(f"{name}-p")))
    until(lambda: not sleepers(seconds))


def test_timeouts_of_batched_code(client):
    new_repo(client, "tb", {"/1": b"1", "/slow": b"slow", "/2": b"2"})
    wait = "if data == 'slow':\n            import time; time.sleep(100)\n        "
    code = BATCH.replace("if data ==", f"{wait}if data ==")
    transform = {"cmd": ["python3", "-c", code], "stdin": [], "datumBatching": True}
    source = {"pfs": {"repo": "tb", "name": "h", "glob": "/*"}}
    create(client, "slowly", "", source, transform=transform, datumTries=2, datumTimeout="5s")
    job = last_job(client, "slowly")
    assert (job.state, counts(job)) == (pps_pb2.JOB_FAILURE, (2, 0, 1, 0, 3))
    assert names(client, "slowly") == ["/1", "/2"]
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)) if not m.user]
    assert sum("datum timed out after 5 seconds" in line for line in text) == 2
    create(client, "short", "", source, transform=transform, jobTimeout="2s")
    assert last_job(client, "short").state == pps_pb2.JOB_KILLED


def test_every_job_runs_every_datum(client):
    new_repo(client, "ev", {"/x": b"1", "/y": b"2"})
    create(client, "every", "date +%N > /pfs/out/$(basename /pfs/ev/*)", glob("ev"), reprocessSpec="every_job")
    assert counts(last_job(client, "every")) == (2, 0, 0, 0, 2)
    before = read(client, "every", "/y")
    put(client, "ev", {"/x": b"3"})
    assert counts(last_job(client, "every")) == (2, 0, 0, 0, 2)
    assert read(client, "every", "/y") != before


def test_a_failed_datum_runs_again_until_it_succeeds(client):
    """Pachyderm's `until_success`: only what succeeded in a job that succeeded is skipped."""
    new_repo(client, "us", {"/x": b"1", "/y": b"bad"})
    script = "if grep -q bad /pfs/us/*; then exit 1; fi; cp /pfs/us/* /pfs/out/"
    create(client, "until", script, glob("us"), datumTries=1)
    assert counts(last_job(client, "until")) == (1, 0, 1, 0, 2)
    put(client, "us", {"/z": b"3"})
    assert counts(last_job(client, "until"))[2] == 1
    put(client, "us", {"/y": b"good"})
    job = last_job(client, "until")
    assert (job.state, job.data_failed, job.data_total) == (pps_pb2.JOB_SUCCESS, 0, 3)
    put(client, "us", {"/w": b"4"})
    assert counts(last_job(client, "until")) == (1, 3, 0, 0, 4)


def test_batched_code_begun_anew(client):
    new_repo(client, "rb", {"/x": b"1"})
    with Gate() as gate:
        code = BATCH.replace("data = open", f"print('begin', flush=True); {gate.python}; data = open")
        transform = {"cmd": ["python3", "-c", code], "stdin": [], "datumBatching": True}
        source = {"pfs": {"repo": "rb", "name": "h", "glob": "/*"}}
        create(client, "anew", "", source, transform=transform, datumTries=1)
        gate.arrived()
        job = newest(client, "anew")
        client.pps.RestartDatum(pps_pb2.RestartDatumRequest(job=job.job, data_filters=["/x"]))
        gate.arrived(2)
    job = last_job(client, "anew")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (1, 0, 0, 0, 1))
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)) if m.user]
    assert text.count("begin") == 2


def test_a_datum_begun_anew(client):
    new_repo(client, "re", {"/x": b"1"})
    with Gate() as gate:
        script = f"echo begin; test -e /pfs/re/x && {gate.shell}; touch /pfs/out/done"
        create(client, "again", script, glob("re"), datumTries=1)
        gate.arrived()
        job = newest(client, "again")
        client.pps.RestartDatum(pps_pb2.RestartDatumRequest(job=job.job, data_filters=["/x"]))
        gate.arrived(2)
    job = last_job(client, "again")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (1, 0, 0, 0, 1))  # it costs no try
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)) if m.user]
    assert text.count("begin") == 2


def test_autoscaling_is_standby_without_work(client):
    new_repo(client, "as", {"/x": b"1"})
    gate = Gate()
    create(client, "scaled", f"{gate.shell}; cp /pfs/as/* /pfs/out/", glob("as"), autoscaling=True)

    def state():
        return client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline("scaled"))).state

    until(lambda: state() == pps_pb2.PIPELINE_RUNNING)
    gate.open()
    assert last_job(client, "scaled").state == pps_pb2.JOB_SUCCESS
    until(lambda: state() == pps_pb2.PIPELINE_STANDBY)
    gate.shut()
    put(client, "as", {"/y": b"2"})
    until(lambda: state() == pps_pb2.PIPELINE_RUNNING)
    gate.open()
    assert counts(last_job(client, "scaled")) == (1, 1, 0, 0, 2)
    until(lambda: state() == pps_pb2.PIPELINE_STANDBY)


@pytest.mark.timeout(900)
def test_batched_datums_and_kills_of_pachd(tmp_path: Path):
    """Every datum is there once, however often pachd died while they ran."""
    server = Pachd(tmp_path / "data")
    count = 600
    with running(server):
        with Client(server.address, timeout=60) as client:
            new_repo(client, "h", {f"/{i}": b"%d" % i for i in range(count)})
            slow = BATCH.replace("data = open", "import time; time.sleep(0.004); data = open")
            transform = {"cmd": ["python3", "-c", slow], "stdin": [], "datumBatching": True}
            create(client, "b", "", glob("h"), transform=transform, parallelismSpec={"constant": 2})
        for pause in (0.4, 0.9, 1.5):
            time.sleep(pause)
            server.kill()
            server.start()
        with Client(server.address, timeout=120) as client:
            job = last_job(client, "b")
            assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (count, 0, 0, 0, count))
            assert sorted(names(client, "b")) == sorted(f"/{i}" for i in range(count))
            assert all(read(client, "b", f"/{i}") == b"%d%d" % (i, i) for i in range(0, count, 50))
            found = list(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job.job)))
            assert len(found) == count and {d.state for d in found} == {pps_pb2.SUCCESS}
        assert server.stop() == 0
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("batched", [False, True])
def test_datums_that_are_over_are_seen_while_a_long_one_runs(client, batched):
    name = f"seen-{batched}".lower()
    new_repo(client, name, {f"/{i}": b"%d" % i for i in range(12)} | {"/slow": b"slow"})
    wait = "if data == 'slow':\n            import time; time.sleep(60)\n        "
    code = BATCH.replace("if data ==", f"{wait}if data ==")
    transform = {"cmd": ["python3", "-c", code], "stdin": [], "datumBatching": True} if batched else {}
    source = {"pfs": {"repo": name, "name": "h", "glob": "/*"}}
    create(client, f"{name}-p", "if test -e /pfs/h/slow; then sleep 60; fi", source, transform=transform,
           parallelismSpec={"constant": 2})  # fmt: skip
    job = until(lambda: newest(client, f"{name}-p") if newest(client, f"{name}-p").data_processed == 12 else None)
    assert job.state == pps_pb2.JOB_RUNNING
    client.pps.StopJob(pps_pb2.StopJobRequest(job=job.job))
    assert last_job(client, f"{name}-p").state == pps_pb2.JOB_KILLED
