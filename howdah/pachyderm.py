"""What several commands ask a pachd: embedded or a cluster, by the same few RPCs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib.const import Status

from pachd.client import Client, RpcError, parse_ref
from pachd.proto import pfs_pb2, pps_pb2


class Problem(click.ClickException):
    """An error that ends a command with exit code 1 and one sentence."""


def parse(ref: str, what: str = "reference") -> pfs_pb2.File:
    """Parse `[project/]repo[@branch|=commit][:path]`; raises click.UsageError."""
    try:
        return parse_ref(ref)
    except ValueError as e:
        raise click.UsageError(f"{what}: {e}") from None


def show_repo(repo: pfs_pb2.Repo) -> str:
    """`images`, or `project/images` outside of the project `default`; system repos keep their type."""
    name = repo.name if repo.type in ("", "user") else f"{repo.name}.{repo.type}"
    return name if repo.project.name in ("", "default") else f"{repo.project.name}/{name}"


def iso(time: Timestamp | None) -> str | None:
    """A protobuf time as ISO 8601 in UTC, seconds; None where it is not set."""
    if time is None or not (time.seconds or time.nanos):
        return None
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit_info(client: Client, commit: pfs_pb2.Commit, wait: bool = False) -> pfs_pb2.CommitInfo:
    """InspectCommit; with `wait` not before the commit is finished. Raises RpcError."""
    state = pfs_pb2.CommitState.FINISHED if wait else pfs_pb2.CommitState.STARTED
    return client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=_complete(commit), wait=state))


def ancestors(client: Client, commit: pfs_pb2.Commit) -> Iterator[pfs_pb2.CommitInfo]:
    """The finished commits from this one back to the first, newest first."""
    info: pfs_pb2.CommitInfo | None = commit_info(client, commit)
    while info is not None:
        if info.HasField("finished"):
            yield info
        info = commit_info(client, info.parent_commit) if info.parent_commit.id else None


def read(client: Client, commit: pfs_pb2.Commit, path: str) -> bytes:
    """The content of one file. Raises RpcError."""
    request = pfs_pb2.GetFileRequest(file=pfs_pb2.File(commit=_complete(commit), path=path))
    return b"".join(part.value for part in client.pfs.GetFile(request))


def read_json(client: Client, commit: pfs_pb2.Commit, path: str) -> Any | None:
    """A JSON file; None where there is no such file or it is no JSON."""
    try:
        return json.loads(read(client, commit, path))
    except ValueError:
        return None
    except RpcError as e:
        if is_missing(e):
            return None
        raise


def is_missing(error: RpcError) -> bool:
    """Whether a pachd says that something does not exist; a real one has no status of its own for files."""
    return error.code is Status.NOT_FOUND or "not found" in error.message


def jobs_of(client: Client, job_id: str) -> list[pps_pb2.JobInfo]:
    """The jobs of a commit set, upstream first; none where no pipeline ran."""
    try:
        request = pps_pb2.InspectJobSetRequest(job_set=pps_pb2.JobSet(id=job_id))
        return list(client.pps.InspectJobSet(request))
    except RpcError as e:
        if is_missing(e):
            return []
        raise


def job_state(info: pps_pb2.JobInfo) -> str:
    """`success`, `failure`, `running`, …"""
    return pps_pb2.JobState.Name(info.state).removeprefix("JOB_").removeprefix("STATE_").lower()


def describe_job(info: pps_pb2.JobInfo) -> dict[str, Any]:
    """A job's pipeline, state, reason (if any) and datum counts."""
    described = {
        "pipeline": info.job.pipeline.name,
        "state": job_state(info),
        "processed": info.data_processed,
        "skipped": info.data_skipped,
        "failed": info.data_failed,
        "total": info.data_total,
    }
    return {**described, "reason": info.reason} if info.reason else described


def describe_commit(info: pfs_pb2.CommitInfo) -> dict[str, Any]:
    """What a person wants to know of a commit: when, who, what they said."""
    return {
        "repo": show_repo(info.commit.repo),
        "commit": info.commit.id,
        "time": iso(info.finished) or iso(info.started),
        "state": "finished" if info.HasField("finished") else "finishing" if info.HasField("finishing") else "open",
        "by": info.metadata.get("howdah.by") or info.created_by or None,
        "message": info.description or None,
        "error": info.error or None,
    }


def _complete(commit: pfs_pb2.Commit) -> pfs_pb2.Commit:
    """With repo type and project named, which some servers insist on."""
    done = pfs_pb2.Commit()
    done.CopyFrom(commit)
    if not done.repo.name:
        done.repo.CopyFrom(done.branch.repo)
    for repo in [done.repo, *([done.branch.repo] if done.HasField("branch") else [])]:
        repo.name = repo.name or done.repo.name
        repo.type = repo.type or "user"
        repo.project.name = repo.project.name or "default"
    return done
