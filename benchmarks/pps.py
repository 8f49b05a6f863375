"""Pipelines: how long a commit waits for its first datum, one changed datum among many, trivial datums."""

import time
from pathlib import Path

from benchmarks.pfs import commit_of, content, create_repo, fill, path, stream
from benchmarks.result import Row, median, row
from benchmarks.servers import pachd
from pachd.client import Client
from pachd.proto import pfs_pb2, pps_pb2


def pipeline_of(name: str) -> pps_pb2.Pipeline:
    return pps_pb2.Pipeline(project=pfs_pb2.Project(name="default"), name=name)


def create(client: Client, name: str, repo: str, glob: str, transform: pps_pb2.Transform, workers: int = 2) -> None:
    """A pipeline over one repo; returns when it is accepted."""
    client.pps.CreatePipeline(
        pps_pb2.CreatePipelineRequest(
            pipeline=pipeline_of(name),
            transform=transform,
            parallelism_spec=pps_pb2.ParallelismSpec(constant=workers),
            input=pps_pb2.Input(pfs=pps_pb2.PFSInput(project="default", repo=repo, name=repo, glob=glob)),
        )
    )


def job_of(client: Client, name: str, job_id: str) -> pps_pb2.JobInfo:
    """The job, once it has ended; one that did not succeed is an error."""
    request = pps_pb2.InspectJobRequest(job=pps_pb2.Job(pipeline=pipeline_of(name), id=job_id), wait=True)
    info: pps_pb2.JobInfo = client.pps.InspectJob(request, timeout=1200)
    if info.state != pps_pb2.JOB_SUCCESS:
        raise RuntimeError(f"job {name}@{job_id}: {pps_pb2.JobState.Name(info.state)}: {info.reason}")
    return info


def head(client: Client, repo: str) -> str:
    """The ID of the newest commit, finished or not."""
    return str(client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=commit_of(repo))).commit.id)


def put(client: Client, repo: str, name: str, raw: bytes) -> str:
    """One file put; the commit's ID, which is also that of the job it starts."""
    messages = list(stream(repo, [(name, raw)]))
    messages.insert(1, pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=name)))
    client.pfs.ModifyFile(iter(messages))
    return head(client, repo)


def until_running(client: Client, folder: Path) -> float:
    """Seconds from the commit of one file until its datum runs, with the pipeline already there: a datum writes the
    time at which it began."""
    create_repo(client, "clock")
    create(client, "start", "clock", "/*", pps_pb2.Transform(cmd=["sh", "-c", "date +%s.%N >/pfs/out/began"]))
    taken = []
    for i in range(7):
        client.pfs.ModifyFile(stream("clock", [("/tick", b"%d" % i)]))
        sent = time.time()
        job_of(client, "start", head(client, "clock"))
        request = pfs_pb2.GetFileRequest(file=pfs_pb2.File(commit=commit_of("start"), path="/began"))
        taken.append(float(b"".join(part.value for part in client.pfs.GetFile(request))) - sent)
    return median(taken[1:])


def change_among(client: Client, count: int) -> float:
    """Seconds from putting one changed file until its job is done, in a pipeline of `count` datums, the trivial datum
    included."""
    repo, name = f"items-{count}", f"each-{count}"
    fill(client, repo, count, 120)
    create(client, name, repo, "/*/*", batch_transform(repo))
    job_of(client, name, head(client, name))
    taken = []
    for i in range(3):
        started = time.perf_counter()
        job = job_of(client, name, put(client, repo, path(7), content(20_000_000 + i, 120)))
        taken.append(time.perf_counter() - started)
        assert (job.data_processed, job.data_skipped) == (1, count - 1), (job.data_processed, job.data_skipped)
    return median(taken)


def batch_transform(repo: str) -> pps_pb2.Transform:
    """A worker that lives for many datums: it asks for the next one, and copies one file's size.

    The code is as lean as a user can make it with what `pipelines/` offers: one Python process per worker, the loop of
    `pipelines/worker.py` (gRPC over a plain socket), and the file's path from the variable that is named after the
    input, so that nothing is listed.
    """
    script = (
        "from pipelines.worker import each_datum\n"
        "import os\n"
        "def work():\n"
        f"    path = os.environ['{repo}']\n"
        "    with open('/pfs/out/' + os.path.basename(path), 'w') as out:\n"
        "        out.write(str(os.stat(path).st_size))\n"
        "each_datum(work)\n"
    )
    return pps_pb2.Transform(cmd=["python3", "-c", script], datum_batching=True)


def trivial(client: Client, count: int, batched: bool) -> float:
    """Datums per second of a pipeline whose datums do nearly nothing."""
    repo = f"trivial-{'batched' if batched else 'process'}"
    fill(client, repo, count, 120)
    transform = batch_transform(repo) if batched else pps_pb2.Transform(cmd=["true"])
    started = time.perf_counter()
    create(client, f"{repo}-run", repo, "/*/*", transform)
    job = job_of(client, f"{repo}-run", head(client, f"{repo}-run"))
    taken = time.perf_counter() - started
    assert job.data_processed == count, job.data_processed
    return count / taken


def run(folder: Path, quick: bool = False) -> list[Row]:
    """All rows about pipelines.

    :param folder: an empty folder to work in.
    :param quick: a tenth of the datums, and no row of 100,000.
    """
    rows: list[Row] = []
    with pachd(folder / "data") as client:
        rows.append(row("commit to first datum running", until_running(client, folder), "s", 0.15))
        count = 1000 if quick else 10_000
        rows.append(row("trivial datums, batched", trivial(client, count, True), "datums/s", 1_000, at_least=True))
        count = 60 if quick else 600
        rows.append(row("trivial datums, a process each", trivial(client, count, False), "datums/s", 60, at_least=True))
        for count in (1_000,) if quick else (10_000, 100_000):
            name = f"one changed datum among {count}, put to finished"
            rows.append(row(name, change_among(client, count), "s", 0.3))
    return rows
