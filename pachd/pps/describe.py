"""Pipelines as clients see them: one, one of its earlier versions, or many."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pps import pipelines
from pachd.proto import pps_pb2
from pachd.store import Snapshot

_ANCESTRY = re.compile(r"(?P<name>[^~^.]+)(?P<marks>\^+|~+|\.+)(?P<number>\d{0,9})")


def info(txn: Snapshot, row: sqlite3.Row, details: bool = True, inspect: bool = False) -> pps_pb2.PipelineInfo:
    """A pipeline's version as clients see it; ``inspect`` adds how many workers there are."""
    found = pps_pb2.PipelineInfo.FromString(row["info"])
    found.version, found.stopped, found.state, found.reason = (
        row["shown"],
        bool(row["stopped"]),
        row["state"],
        row["reason"],
    )
    found.parallelism = max(found.details.parallelism_spec.constant, 1)
    commit = found.spec_commit
    commit.id, commit.branch.name = row["spec_commit"], "master"
    for repo in (commit.repo, commit.branch.repo):
        repo.name, repo.type, repo.project.name = row["name"], "spec", row["project"]
    last = txn.db.execute(
        "SELECT state FROM pps_jobs WHERE pipeline=? ORDER BY pk DESC LIMIT 1", (row["pk"],)
    ).fetchone()
    if last is not None:
        found.last_job_state = last["state"]
    if not details:
        found.ClearField("details")
        return found
    found.details.created_at.FromNanoseconds(row["created"])
    found.details.updated_at.FromNanoseconds(row["updated"])
    if inspect:
        found.details.workers_requested = found.parallelism
        if row["state"] == pipelines.RUNNING:
            found.details.workers_available = found.parallelism
    if row["workers_started"] and row["state"] not in (pipelines.PAUSED, pipelines.STANDBY):
        found.details.workers_started_at.FromNanoseconds(row["workers_started"])
    return found


def inspect_pipeline(txn: Snapshot, pipeline: pps_pb2.Pipeline, details: bool) -> pps_pb2.PipelineInfo:
    """One pipeline; `NAME^` and `NAME~2` are earlier versions of it.  NotFound."""
    match = _ANCESTRY.fullmatch(pipeline.name)
    if match is None:
        return info(txn, pipelines.find(txn, pipeline), details, inspect=details)
    row = pipelines.find(txn, pps_pb2.Pipeline(project=pipeline.project, name=match["name"]))
    number = int(match["number"] or len(match["marks"]))
    if match["marks"][0] == ".":
        raise PachError("cannot inspect future pipelines")
    old = txn.db.execute(
        pipelines.SELECT + "WHERE p.pk=? AND v.version=?", (row["pk"], row["version"] - number)
    ).fetchone()
    if old is None:
        raise PachError(
            f'pipeline "{row["project"]}/{row["name"]}" has only {row["version"]} versions, '
            f"not enough to find ancestor {number}"
        )
    return info(txn, old, details, inspect=details)


def list_pipelines(
    txn: Snapshot,
    projects: Sequence[str] = (),
    pipeline: pps_pb2.Pipeline | None = None,
    history: int = 0,
    commit_set: str = "",
) -> Iterator[pps_pb2.PipelineInfo]:
    """Pipelines, newest first, each with ``history`` earlier versions (-1: all). NotFound when there is no such
    ``pipeline``."""
    where = ["(?<0 OR v.version >= p.version - ?)"]
    values: list[Any] = [history, history]
    if pipeline is not None and pipeline.name:
        where.append("p.project=? AND p.name=?")
        key = (pipeline.project.name or "default", pipeline.name)
        values += key
        if txn.db.execute("SELECT 1 FROM pps_pipelines WHERE project=? AND name=?", key).fetchone() is None:
            raise NotFound(f'could not list pipeline info: pipeline "{key[0]}/{key[1]}" not found')
    if projects:
        where.append(f"p.project IN ({','.join('?' * len(projects))})")
        values += list(projects)
    if commit_set:
        where.append("EXISTS (SELECT 1 FROM pps_jobs j WHERE j.pipeline=p.pk AND j.version=v.version AND j.id=?)")
        values.append(commit_set)
    sql = pipelines.SELECT + f"WHERE {' AND '.join(where)} ORDER BY p.pk DESC, v.version DESC"
    for row in txn.db.execute(sql, values).fetchall():
        yield info(txn, row)
