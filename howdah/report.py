"""What the demo reports: everything is asked from pachd, as anybody could afterwards."""

import time
from collections.abc import Callable
from typing import Any

from howdah import blame as blames
from howdah import metrics as metric
from howdah.pachyderm import Problem, ancestors, describe_job, job_state, jobs_of, read_json
from howdah.rollback import rollback
from pachd.client import Client, parse_ref
from pachd.proto import pfs_pb2, pps_pb2

OVER = ("success", "failure", "killed", "unrunnable")
PIPELINES = ("preprocess", "train", "evaluate")


def head(client: Client, repo: str) -> str:
    """The commit ID of a repo's master."""
    branch = parse_ref(f"{repo}@master").commit.branch
    return client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch)).head.id


def label_commits(client: Client) -> list[pfs_pb2.CommitInfo]:
    """The commits that people made on labels@master, oldest first."""
    user = pfs_pb2.OriginKind.USER
    return [i for i in ancestors(client, parse_ref("labels@master").commit) if i.origin.kind == user][::-1]


def wait_for_jobs(
    client: Client, commit: str, progress: Callable[[list[pps_pb2.JobInfo]], None], seconds: float = 240
) -> list[pps_pb2.JobInfo]:
    """Wait until all jobs of a commit set are over; `progress` is called with them while they run.

    :raises Problem: they take longer than `seconds`, or one of them did not succeed.
    """
    deadline = time.monotonic() + seconds
    while True:
        jobs = [job for job in jobs_of(client, commit) if job.job.pipeline.name in PIPELINES]
        progress(jobs)
        if len(jobs) == len(PIPELINES) and all(job_state(job) in OVER for job in jobs):
            break
        if time.monotonic() > deadline:
            states = ", ".join(f"{job.job.pipeline.name} {job_state(job)}" for job in jobs) or "none was started"
            raise Problem(f"the jobs of commit {commit} are not done after {seconds:.0f} s: {states}")
        time.sleep(0.1)
    for job in jobs:
        if job_state(job) != "success":
            name = job.job.pipeline.name
            raise Problem(f"job {name}@{commit} ended in {job_state(job)}: {job.reason}{_logs(client, job)}")
    return jobs


def _logs(client: Client, job: pps_pb2.JobInfo) -> str:
    messages = [m.message.rstrip() for m in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job.job)) if m.user]
    return "".join(f"\n  | {line}" for message in messages[-20:] for line in message.splitlines())


def rounds(client: Client, sync_seconds: dict[str, float]) -> list[dict[str, Any]]:
    """One entry per label commit.

    :param sync_seconds: what only the one who pressed Sync can know: how long it took, by commit ID.
    """
    found = []
    commits = [info.commit.id for info in label_commits(client)]
    previous = -1
    for n, commit in enumerate(commits):
        if commit not in sync_seconds:
            continue
        jobs = {job["pipeline"]: job for job in map(describe_job, jobs_of(client, commit))}
        found.append(
            {
                "labels": len(label_files(client, commit)),
                "commit": commit,
                "commits_on_labels": n - previous,
                "sync_seconds": round(sync_seconds[commit], 3),
                "jobs": [jobs[name] for name in PIPELINES if name in jobs],
                "accuracy": accuracy(client, commit),
            }
        )
        previous = n
    return found


def accuracy(client: Client, commit: str) -> float | None:
    """What `evaluate` measured in a commit set."""
    metrics = read_json(client, parse_ref(f"evaluate@{commit}").commit, metric.METRICS)
    return metrics["accuracy"] if isinstance(metrics, dict) else None


def label_files(client: Client, commit: str) -> dict[str, bytes]:
    """The label files of a commit, path to hash."""
    request = pfs_pb2.GlobFileRequest(commit=parse_ref(f"labels@{commit}").commit, pattern="/**")
    return {i.file.path: i.hash for i in client.pfs.GlobFile(request) if i.file_type == pfs_pb2.FileType.FILE}


def who_labelled(client: Client) -> dict[str, Any]:
    """The answer of `howdah blame` for one item: one whose label was corrected last, if any was."""
    commits = [info.commit.id for info in label_commits(client)]
    now = label_files(client, commits[-1])
    before = label_files(client, commits[-2]) if len(commits) > 1 else {}
    corrected = sorted(path for path in now if path in before and now[path] != before[path])
    path = (corrected or sorted(now))[0]
    answer = blames.blame(client, parse_ref(f"labels@master:{path}"))
    annotators = sorted({a["annotator"] for a in answer["annotations"]})
    newest = max(answer["annotations"], key=lambda a: str(a["time"]))
    return {"path": path, "annotators": annotators, "commit": newest["commit"], "time": newest["time"]}


def accuracy_before(client: Client) -> float | None:
    """The answer of `howdah metrics` for the round before the last."""
    rows = metric.metrics(client, parse_ref("evaluate@master").commit)
    return rows[1]["accuracy"] if len(rows) > 1 else None


def roll_back(
    client: Client, progress: Callable[[list[pps_pb2.JobInfo]], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Roll labels@master back by one round, wait for the models made from it, and tell what pachd says then.

    :return: what the report says, and the answer of `howdah rollback`.
    """
    commits = [info.commit.id for info in label_commits(client)]
    branch = parse_ref("labels@master").commit.branch
    moved = rollback(client, branch, commits[-2])
    started = next(s["commit"] for s in moved["started"] if s["branch"].startswith("evaluate@"))
    jobs = wait_for_jobs(client, started, progress)
    kept = [i.commit.id for i in client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=branch.repo, all=True))]
    described = {job["pipeline"]: job for job in map(describe_job, jobs)}
    report = {
        "branch": "labels@master",
        "from": commits[-1],
        "to": commits[-2],
        "head": head(client, "labels"),
        "history_kept": set(commits) <= set(kept),
        "jobs": [described[name] for name in PIPELINES],
        "accuracy": accuracy(client, started),
    }
    return report, moved
