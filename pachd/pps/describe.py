"""Pipelines as clients see them: one, one of its earlier versions, or many."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pachd.errors import NotFound
from pachd.pfs import refs
from pachd.pps import lookup, pipelines
from pachd.proto import pps_pb2
from pachd.store import Snapshot
from pachd.types import Repo


def info(
    txn: Snapshot, row: sqlite3.Row, details: bool = True, inspect: bool = False, jobs_of: int = sys.maxsize
) -> pps_pb2.PipelineInfo:
    """A pipeline's version as clients see it; ``inspect`` adds how many workers there are.

    An earlier version is in the state that it was in when the next one came. The state of the last job is that of the
    newest one of the versions up to ``jobs_of``.
    """
    found = pps_pb2.PipelineInfo.FromString(row["info"])
    found.version = row["shown"]
    if row["shown"] == row["version"] or not found.state:
        found.stopped, found.state, found.reason = bool(row["stopped"]), row["state"], row["reason"]
    found.parallelism = max(found.details.parallelism_spec.constant, 1)
    commit = found.spec_commit
    commit.id, commit.branch.name = row["spec_commit"], "master"
    for repo in (commit.repo, commit.branch.repo):
        repo.name, repo.type, repo.project.name = row["name"], "spec", row["project"]
    last = txn.db.execute(
        "SELECT state FROM pps_jobs WHERE pipeline=? AND version<=? ORDER BY pk DESC LIMIT 1", (row["pk"], jobs_of)
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
    return info(txn, lookup.find(txn, pipeline), details, inspect=details)


def list_pipelines(
    txn: Snapshot,
    projects: Sequence[str] = (),
    pipeline: pps_pb2.Pipeline | None = None,
    history: int = 0,
    commit_set: str = "",
) -> Iterator[pps_pb2.PipelineInfo]:
    """Pipelines, each with ``history`` earlier versions (-1: all), by when the version was made, newest first.

    With a ``commit_set`` as they were for it, those that it has nothing to do with left out. NotFound when there is no
    such ``pipeline``.
    """
    where = ["(?<0 OR v.version >= p.version - ?)"]
    values: list[Any] = [history, history]
    if pipeline is not None:
        where.append("p.project=? AND p.name=?")
        key = (pipeline.project.name or "default", pipeline.name)
        values += key
        if txn.db.execute("SELECT 1 FROM pps_pipelines WHERE project=? AND name=?", key).fetchone() is None:
            raise NotFound(f'pipeline "{key[0]}/{key[1]}" not found')
    if projects:
        where.append(f"p.project IN ({','.join('?' * len(projects))})")
        values += list(projects)
    sql = lookup.SELECT + f"WHERE {' AND '.join(where)} ORDER BY v.updated DESC, v.spec_commit"
    for row in txn.db.execute(sql, values).fetchall():
        if not commit_set:
            yield info(txn, row)
        elif then := _at(txn, row, commit_set):
            yield info(txn, then, jobs_of=then["shown"])


def _at(txn: Snapshot, row: sqlite3.Row, commit_set: str) -> sqlite3.Row | None:
    """The version of a pipeline that a commit set was made with."""
    try:
        commit = refs.resolve_commit(txn, (Repo(row["project"], row["name"], "spec"), commit_set))
    except NotFound:
        return None
    found: sqlite3.Row | None = txn.db.execute(
        lookup.SELECT + "WHERE p.pk=? AND v.spec_commit=?", (row["pk"], commit.id)
    ).fetchone()
    return found
