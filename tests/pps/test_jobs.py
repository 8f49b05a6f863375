"""Pipelines that really run, asked over the wire."""

import time

import pytest

from pachd.client import RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import BATCH, counts, create, glob, head, last_job, names, new_repo, pipeline, put, read


def test_a_job_and_what_changed_since(client):
    new_repo(client, "a", {"/x": b"1", "/y": b"2"})
    create(client, "copy", "cp /pfs/a/* /pfs/out/\necho done", glob("a"))
    job = last_job(client, "copy")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (2, 0, 0, 0, 2))
    assert names(client, "copy") == ["/x", "/y"]
    put(client, "a", {"/z": b"3"})
    assert counts(last_job(client, "copy")) == (1, 2, 0, 0, 3)
    put(client, "a", {"/x": b"changed"})
    assert counts(last_job(client, "copy")) == (1, 2, 0, 0, 3)
    assert read(client, "copy", "/x") == b"changed"
    put(client, "a", {}, delete=["/y"])
    assert counts(last_job(client, "copy")) == (0, 2, 0, 0, 2)
    assert names(client, "copy") == ["/x", "/z"]
    datums = list(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=last_job(client, "copy").job)))
    assert [d.state for d in datums] == [pps_pb2.SKIPPED, pps_pb2.SKIPPED]
    assert [p for p in names(client, "copy", "meta") if p.startswith("/meta/")] == [
        f"/meta/{d.datum.id}/meta" for d in datums
    ]


def test_a_failed_datum_fails_the_job_and_what_is_downstream(client):
    new_repo(client, "b", {"/good": b"good", "/bad": b"bad"})
    create(client, "picky", "if grep -q bad /pfs/b/*; then exit 3; fi\ncp /pfs/b/* /pfs/out/", glob("b"), datumTries=2)
    create(client, "after", "cp /pfs/picky/* /pfs/out/", glob("picky"))
    job = last_job(client, "picky")
    assert (job.state, counts(job)) == (pps_pb2.JOB_FAILURE, (1, 0, 1, 0, 2))
    failed = [d for d in client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job.job)) if d.state == pps_pb2.FAILED]
    assert job.reason == f"datum {failed[0].datum.id} failed"
    assert names(client, "picky") == ["/good"]
    after = last_job(client, "after")
    assert after.state == pps_pb2.JOB_UNRUNNABLE
    assert after.reason == "unrunnable because the following upstream pipelines failed: picky"
    put(client, "b", {"/bad": b"better"})
    assert last_job(client, "after").state == pps_pb2.JOB_SUCCESS
    assert names(client, "after") == ["/bad", "/good"]


def test_retries_err_cmd_accepted_codes_and_missing_programs(client):
    new_repo(client, "c", {"/f": b"x"})
    create(client, "rec", "exit 1", glob("c"), transform={"errCmd": ["true"]})
    create(client, "acc", "cp /pfs/c/* /pfs/out\nexit 3", glob("c"), transform={"acceptReturnCode": [3]})
    create(client, "none", "", glob("c"), transform={"cmd": ["/no/such/program"]}, datumTries=1)
    create(client, "slow", "sleep 60", glob("c"), datumTries=1, datumTimeout="0.3s")
    create(client, "long", "sleep 60", glob("c"), jobTimeout="0.5s")
    assert counts(last_job(client, "rec")) == (0, 0, 0, 1, 1)
    assert counts(last_job(client, "acc")) == (1, 0, 0, 0, 1)
    assert names(client, "acc") == ["/f"]
    assert last_job(client, "none").state == pps_pb2.JOB_FAILURE
    assert last_job(client, "slow").state == pps_pb2.JOB_FAILURE
    assert last_job(client, "long").state == pps_pb2.JOB_KILLED
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(pipeline=pipeline("none")))]
    assert any("no such file or directory" in line for line in text)


def test_a_job_that_takes_too_much_memory_says_so(client):
    new_repo(client, "hungry", {"/small": b"1", "/big": b"300"})
    script = (
        "python3 -c \"x = bytearray(b'x') * ($(cat /pfs/hungry/*) << 20); import time; time.sleep(100)\" || exit $?"
    )
    create(client, "eats", f"grep -q 300 /pfs/hungry/* || exit 0\n{script}", glob("hungry"), datumTries=1,
           resourceLimits={"memory": "150Mi", "cpu": 1})  # fmt: skip
    job = last_job(client, "eats")
    assert (job.state, counts(job)) == (pps_pb2.JOB_FAILURE, (1, 0, 1, 0, 2))
    failed = [d for d in client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job.job)) if d.state == pps_pb2.FAILED]
    reason = "out of memory: the code was killed at its limit of 150Mi (resourceLimits.memory)"
    assert job.reason == f"datum {failed[0].datum.id} failed: {reason}"
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job))]
    assert any(reason in line for line in text)


def test_logs_of_a_datum(client):
    new_repo(client, "d", {"/x": b"", "/y": b""})
    create(client, "talk", "echo hello $d\necho err >&2", glob("d"), parallelismSpec={"constant": 2})
    job = last_job(client, "talk")
    lines = list(client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)))
    assert sorted(line.message for line in lines if line.user) == [
        "err",
        "err",
        "hello /pfs/d/x",
        "hello /pfs/d/y",
    ]
    one = lines[0].datum_id
    of_one = client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job, datum=pps_pb2.Datum(job=job.job, id=one)))
    assert {line.datum_id for line in of_one} == {one}
    filtered = client.pps.GetLogs(pps_pb2.GetLogsRequest(pipeline=pipeline("talk"), data_filters=["/x"]))
    assert {line.data[0].path for line in filtered} == {"/x"}


def test_lazy_and_empty_inputs(client):
    """A lazy input is a pipe, read once, partly, several at a time or not at all; an empty one has names only."""
    big = b"0123456789" * 300_000
    new_repo(client, "lz", {"/d/one": big, "/d/two": b"two", "/d/never": b"never", "/d/none": b""})
    script = """
    test -p /pfs/lz/d/one; test -p /pfs/lz/d/never
    paste -d, /pfs/lz/d/one /pfs/lz/d/two | tail -c 4 > /pfs/out/both
    test -z "$(cat /pfs/lz/d/none)"
    """
    create(client, "lazy", script, glob("lz", "/d", lazy=True))
    assert last_job(client, "lazy").state == pps_pb2.JOB_SUCCESS
    assert read(client, "lazy", "/both") == b"two\n"
    create(client, "part", "head -c 5 /pfs/lz/d/one > /pfs/out/part", glob("lz", "/d", lazy=True))
    assert last_job(client, "part").state == pps_pb2.JOB_SUCCESS
    assert read(client, "part", "/part") == b"01234"
    create(client, "empty", "stat -c %s /pfs/lz/d/* > /pfs/out/sizes", glob("lz", "/d", emptyFiles=True))
    assert last_job(client, "empty").state == pps_pb2.JOB_SUCCESS
    assert read(client, "empty", "/sizes") == b"0\n0\n0\n0\n"
    put(client, "lz", {"/d/one": b"less"})
    job = last_job(client, "part")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (1, 0, 0, 0, 1))
    assert read(client, "part", "/part") == b"less"


def test_outputs_links_and_names(client):
    new_repo(client, "e", {"/in": b"input"})
    script = """
    mkdir -p /pfs/out/empty /pfs/out/deep/er; mkfifo /pfs/out/pipe; echo 1 > /pfs/out/deep/er/f
    ln -s /pfs/e/in /pfs/out/link; ln -s er/f /pfs/out/deep/rel
    mkdir /tmp/d; echo t > /tmp/d/t; ln -s /tmp/d /pfs/out/dir
    """
    create(client, "outs", script, glob("e"))
    assert last_job(client, "outs").state == pps_pb2.JOB_SUCCESS
    assert names(client, "outs") == ["/deep/er/f", "/deep/rel", "/dir/t", "/link"]
    assert read(client, "outs", "/link") == b"input"
    create(client, "illegal", "touch '/pfs/out/a*b'", glob("e"), datumTries=1)
    assert last_job(client, "illegal").state == pps_pb2.JOB_FAILURE


def test_stop_start_update_and_delete(client):
    new_repo(client, "f", {"/x": b"1"})
    create(client, "p", "cp /pfs/f/* /pfs/out/", glob("f"))
    last_job(client, "p")
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("p")))
    put(client, "f", {"/y": b"2"})
    info = client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline("p"), details=True))
    assert (info.state, info.stopped) == (pps_pb2.PIPELINE_PAUSED, True)
    assert len(list(client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline("p"))))) == 1
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("p")))
    assert counts(last_job(client, "p")) == (1, 1, 0, 0, 2)
    create(client, "p", "cp /pfs/f/* /pfs/out/; touch /pfs/out/new", glob("f"), update=True)
    assert counts(last_job(client, "p")) == (0, 2, 0, 0, 2)
    create(client, "p", "cat /pfs/f/* > /pfs/out/n$(cat /pfs/f/*)", glob("f"), update=True, reprocess=True)
    assert counts(last_job(client, "p")) == (2, 0, 0, 0, 2)
    assert names(client, "p") == ["/n1", "/n2"]
    with pytest.raises(RpcError, match="already exists"):
        create(client, "p", "true", glob("f"))
    client.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=pipeline("p")))
    with pytest.raises(RpcError, match="not found"):
        client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline("p")))


def test_stopping_a_job_that_runs(client):
    new_repo(client, "g", {"/x": b"1"})
    create(client, "sleeper", "sleep 60", glob("g"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = next(iter(client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline("sleeper"), details=True))))
        if job.state == pps_pb2.JOB_RUNNING and any(w.datum_status.data for w in job.details.worker_status):
            break
        time.sleep(0.05)
    assert [f.path for w in job.details.worker_status for f in w.datum_status.data] == ["/x"]
    client.pps.StopJob(pps_pb2.StopJobRequest(job=job.job))
    job = last_job(client, "sleeper")
    assert (job.state, job.reason) == (pps_pb2.JOB_KILLED, "job stopped")
    commit = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("sleeper"), wait=pfs_pb2.FINISHED))
    assert commit.error == "job stopped"


def test_datum_batching(client):
    new_repo(client, "h", {f"/{i}": b"%d" % i for i in range(40)})
    transform = {"cmd": ["python3", "-c", BATCH], "stdin": [], "datumBatching": True}
    create(client, "batch", "", glob("h"), transform=transform)
    job = last_job(client, "batch")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (40, 0, 0, 0, 40))
    assert read(client, "batch", "/7") == b"77"
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job))]
    assert text.count("started") == 1
    put(client, "h", {"/bad": b"bad"})
    job = last_job(client, "batch")
    assert (job.state, counts(job)[2]) == (pps_pb2.JOB_FAILURE, 1)


def test_the_error_handler_of_a_batch(client):
    """It runs beside the code, which goes on with the next datum; a datum that it saves is recovered."""
    new_repo(client, "handled", {"/1": b"1", "/2": b"2", "/bad": b"bad"})
    handler = {"errCmd": ["sh"], "errStdin": ["echo handled", "test -e /pfs/h/bad"]}
    transform = {"cmd": ["python3", "-c", BATCH], "stdin": [], "datumBatching": True, **handler}
    source = {"pfs": {"repo": "handled", "name": "h", "glob": "/*"}}
    create(client, "saved", "", source, transform=transform, datumTries=2)
    job = last_job(client, "saved")
    assert (job.state, counts(job)) == (pps_pb2.JOB_SUCCESS, (2, 0, 0, 1, 3))
    assert names(client, "saved") == ["/1", "/2"]
    text = [m.message for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)) if m.user]
    assert (text.count("started"), text.count("handled")) == (1, 2)
