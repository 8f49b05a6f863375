"""Checking pipelines and jobs against the repos and commits that belong to them."""

import sqlite3
from collections.abc import Iterator

from pachd.pps import jobs
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot


def check(txn: Snapshot) -> Iterator[str]:
    """What is wrong with pipelines and jobs, a sentence each; nothing if they are sound."""
    try:
        yield from _pipelines(txn)
        yield from _jobs(txn)
    except sqlite3.DatabaseError as err:
        yield f"database: {err}"


def _pipelines(txn: Snapshot) -> Iterator[str]:
    for row in txn.db.execute(
        "SELECT p.*, v.info, v.spec_commit, v.version AS found, "
        "(SELECT 1 FROM commits c JOIN repos r ON r.pk=c.repo_pk WHERE r.project=p.project AND r.name=p.name "
        "AND r.type='spec' AND c.id=v.spec_commit) AS spec, "
        "(SELECT 1 FROM repos r WHERE r.project=p.project AND r.name=p.name AND r.type='user') AS output "
        "FROM pps_pipelines p LEFT JOIN pps_versions v ON v.pipeline=p.pk AND v.version=p.version"
    ):
        name = f"pipeline {row['project']}/{row['name']}"
        if row["state"] not in pps_pb2.PipelineState.values():
            yield f"{name}: {row['state']!r} is not a state"
        if row["found"] is None:
            yield f"{name}: its version {row['version']} is missing"
            continue
        try:
            pps_pb2.PipelineInfo.FromString(row["info"])
        except Exception:
            yield f"{name}: its spec of version {row['version']} is damaged"
        if row["spec"] is None:
            yield f"{name}: the commit {row['spec_commit']} of its spec is missing"
        if row["output"] is None:
            yield f"{name}: its output repo is missing"


def _jobs(txn: Snapshot) -> Iterator[str]:
    open_states = (pfs_pb2.STARTED, pfs_pb2.READY)
    for row in txn.db.execute(
        "SELECT j.id, j.state, j.finished, j.version, p.project, p.name, v.version AS found, c.state AS commit_state "
        "FROM pps_jobs j JOIN pps_pipelines p ON p.pk=j.pipeline "
        "LEFT JOIN pps_versions v ON v.pipeline=j.pipeline AND v.version=j.version "
        "LEFT JOIN repos r ON r.project=p.project AND r.name=p.name AND r.type='user' "
        "LEFT JOIN commits c ON c.repo_pk=r.pk AND c.id=j.id"
    ):
        name = f"job {row['project']}/{row['name']}@{row['id']}"
        if row["state"] not in pps_pb2.JobState.values():
            yield f"{name}: {row['state']!r} is not a state"
            continue
        ended = jobs.terminal(row["state"])
        if ended != bool(row["finished"]):
            yield f"{name}: has {'ended without' if ended else 'not ended but has'} a time at which it ended"
        if row["found"] is None:
            yield f"{name}: version {row['version']} of its pipeline is missing"
        if ended and row["commit_state"] in open_states:
            yield f"{name}: has ended, but its output commit is still open"
