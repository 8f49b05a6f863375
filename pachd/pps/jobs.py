"""Jobs: one per commit that propagation made on a pipeline's output branch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pfs import commits, refs
from pachd.pps import inputs
from pachd.pps.meta import Stats
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Commit, Repo

CREATED, STARTING, RUNNING = pps_pb2.JOB_CREATED, pps_pb2.JOB_STARTING, pps_pb2.JOB_RUNNING
EGRESSING = pps_pb2.JOB_EGRESSING
FINISHING, SUCCESS, FAILURE = pps_pb2.JOB_FINISHING, pps_pb2.JOB_SUCCESS, pps_pb2.JOB_FAILURE
KILLED, UNRUNNABLE = pps_pb2.JOB_KILLED, pps_pb2.JOB_UNRUNNABLE
TERMINAL = (SUCCESS, FAILURE, KILLED, UNRUNNABLE)
_SELECT = """SELECT j.*, p.project, p.name, p.version AS current, v.info FROM pps_jobs j
    JOIN pps_pipelines p ON p.pk = j.pipeline
    JOIN pps_versions v ON v.pipeline = j.pipeline AND v.version = j.version """


def on_new_commits(txn: Txn, rows: Sequence[Any]) -> None:
    """Propagation's hook: a new AUTO commit on an output branch is a new job, in the same transaction."""
    for row in rows:
        if row.repo.type != "user" or row.branch is None:
            continue
        found = txn.db.execute(
            "SELECT p.pk, p.version, p.stopped, v.info FROM pps_pipelines p JOIN pps_versions v "
            "ON v.pipeline = p.pk AND v.version = p.version WHERE p.project=? AND p.name=?",
            (row.repo.project, row.repo.name),
        ).fetchone()
        if found is None or found["stopped"]:
            continue
        info = pps_pb2.PipelineInfo.FromString(found["info"])
        if info.details.output_branch != row.branch or row.origin != pfs_pb2.AUTO:
            continue
        if info.details.HasField("spout"):  # has no jobs; what its code commits comes after this one
            commits.finish_commit(txn, Commit(row.repo, row.id), description="close spout commit", force=True)
            continue
        txn.db.execute(
            "INSERT OR IGNORE INTO pps_jobs (pipeline, id, version, state, created) VALUES (?,?,?,?,?)",
            (found["pk"], row.id, found["version"], CREATED, txn.now),
        )


def find(txn: Snapshot, job: pps_pb2.Job) -> sqlite3.Row:
    """The row of a job, its pipeline and that version's PipelineInfo; NotFound."""
    if not job.HasField("pipeline"):
        raise NotFound(f"jobs @{job.id} not found")
    project = job.pipeline.project.name or "default"
    row: sqlite3.Row | None = txn.db.execute(
        _SELECT + "WHERE p.project=? AND p.name=? AND j.id=?", (project, job.pipeline.name, job.id)
    ).fetchone()
    if row is None:
        raise NotFound(f"jobs {project}/{job.pipeline.name}@{job.id} not found")
    return row


def find_pk(txn: Snapshot, pk: int) -> sqlite3.Row | None:
    """The same by primary key; None when the job is gone."""
    row: sqlite3.Row | None = txn.db.execute(_SELECT + "WHERE j.pk=?", (pk,)).fetchone()
    return row


def terminal(state: int) -> bool:
    """Whether a job in this state has ended."""
    return state in TERMINAL


def is_over(txn: Snapshot, pk: int) -> bool:
    """Whether a job has ended, or is gone."""
    row = txn.db.execute("SELECT state FROM pps_jobs WHERE pk=?", (pk,)).fetchone()
    return row is None or row["state"] in TERMINAL


def of_pipeline(txn: Snapshot, pipeline: pps_pb2.Pipeline, after: int | None) -> list[sqlite3.Row]:
    """Jobs of a pipeline, of every version, oldest first: those with a key greater than ``after``.

    With None those that have not ended.  None at all when there is no such pipeline.
    """
    values = (pipeline.project.name or "default", pipeline.name)
    which = "j.finished=0" if after is None else "j.pk > ?"
    sql = _SELECT + f"WHERE p.project=? AND p.name=? AND {which} ORDER BY j.pk"
    return txn.db.execute(sql, values if after is None else (*values, after)).fetchall()


def last_pk(txn: Snapshot) -> int:
    """The key of the newest job."""
    return int(txn.db.execute("SELECT coalesce(max(pk), 0) FROM pps_jobs").fetchone()[0])


def message(row: sqlite3.Row) -> pps_pb2.Job:
    """The job's name."""
    job = pps_pb2.Job(id=row["id"])
    job.pipeline.name, job.pipeline.project.name = row["name"], row["project"]
    return job


def info(row: sqlite3.Row, details: bool, workers: Sequence[pps_pb2.WorkerStatus] = ()) -> pps_pb2.JobInfo:
    """A job as clients see it; ``workers`` are shown while it runs."""
    pipeline = pps_pb2.PipelineInfo.FromString(row["info"])
    found = pps_pb2.JobInfo(
        job=message(row),
        pipeline_version=row["version"],
        restart=row["restarts"],
        state=row["state"],
        reason=row["reason"],
        data_processed=row["processed"],
        data_skipped=row["skipped"],
        data_total=row["total"],
        data_failed=row["failed"],
        data_recovered=row["recovered"],
    )
    out = found.output_commit
    out.id = row["id"]
    for repo in (out.repo, out.branch.repo):
        repo.name, repo.type, repo.project.name = row["name"], "user", row["project"]
    out.branch.name = pipeline.details.output_branch
    found.created.FromNanoseconds(row["created"])
    if row["started"]:
        found.started.FromNanoseconds(row["started"])
    if row["started"] and row["state"] != UNRUNNABLE and (row["state"] != KILLED or row["process_time"]):
        found.stats.CopyFrom(stats(row).message())
    else:
        found.stats.SetInParent()
    if row["finished"]:
        found.finished.FromNanoseconds(row["finished"])
    if details:
        _details(found.details, pipeline.details, row["id"])
        if row["state"] == RUNNING:
            found.details.worker_status.extend(workers)
    return found


def stats(row: sqlite3.Row) -> Stats:
    """What the job's own datums cost so far."""
    return Stats(
        row["download_time"], row["process_time"], row["upload_time"], row["download_bytes"], row["upload_bytes"]
    )


_COPIED = (
    "transform",
    "parallelism_spec",
    "egress",
    "service",
    "spout",
    "resource_requests",
    "resource_limits",
    "sidecar_resource_limits",
    "datum_set_spec",
    "datum_timeout",
    "job_timeout",
    "scheduling_spec",
    "sidecar_resource_requests",
)


def _details(target: pps_pb2.JobInfo.Details, source: pps_pb2.PipelineInfo.Details, job: str) -> None:
    for name in _COPIED:
        if source.HasField(name):
            getattr(target, name).CopyFrom(getattr(source, name))
    if source.HasField("input"):
        target.input.CopyFrom(inputs.pin(source.input, job))
    target.salt, target.datum_tries = source.salt, source.datum_tries
    target.pod_spec, target.pod_patch = source.pod_spec, source.pod_patch


def inspect(txn: Snapshot, job: pps_pb2.Job, details: bool) -> pps_pb2.JobInfo:
    """One job; NotFound."""
    return info(find(txn, job), details)


def list_jobs(
    txn: Snapshot,
    projects: Sequence[str] = (),
    pipeline: pps_pb2.Pipeline | None = None,
    history: int = -1,
    before: int = 0,
    number: int = 0,
    reverse: bool = False,
) -> Iterator[sqlite3.Row]:
    """Rows of jobs, newest first (``reverse``: oldest first), those of one transaction by name.

    Only jobs of a pipeline's current version and the ``history`` versions before it (-1: of all versions).
    ``before`` (ns) is an exclusive bound on the time of creation, ``number`` the most to give.
    """
    where: list[str] = ["1"]
    values: list[Any] = []
    if pipeline is not None:
        project = pipeline.project.name or "default"
        found = txn.db.execute(
            "SELECT pk FROM pps_pipelines WHERE project=? AND name=?", (project, pipeline.name)
        ).fetchone()
        if found is None:
            raise NotFound(f'pipeline "{project}/{pipeline.name}" not found')
        where.append("j.pipeline=?")
        values.append(found["pk"])
    if history >= 0:
        where.append("j.version >= p.version - ?")
        values.append(history)
    if projects:
        where.append(f"p.project IN ({','.join('?' * len(projects))})")
        values.extend(projects)
    if before:
        where.append("j.created > ?" if reverse else "j.created < ?")
        values.append(before)
    order = "ASC" if reverse else "DESC"
    name = "p.project || '/' || p.name || '@' || j.id"
    sql = _SELECT + f"WHERE {' AND '.join(where)} ORDER BY j.created {order}, {name}"
    if number:
        sql += f" LIMIT {int(number)}"
    yield from txn.db.execute(sql, values)


def list_sets(
    txn: Snapshot, projects: Sequence[str], before: int = 0, reverse: bool = False
) -> Iterator[tuple[str, list[sqlite3.Row]]]:
    """(job set ID, its jobs), by the newest job of each set, newest first; ``reverse``: by the oldest, oldest first.

    Jobs of other projects than ``projects`` have a say in the order, too. ``before`` (ns) is an exclusive bound on the
    time by which a set is sorted.
    """
    which = "MIN" if reverse else "MAX"
    having = f"HAVING {which}(created) {'>' if reverse else '<'} ?" if before else ""
    order = "ASC" if reverse else "DESC"
    sql = f"SELECT id FROM pps_jobs GROUP BY id {having} ORDER BY {which}(created) {order}, {which}(pk) {order}"
    for found in txn.db.execute(sql, (before,) if before else ()).fetchall():
        rows = [row for row in of_set(txn, found["id"]) if not projects or row["project"] in projects]
        if rows:
            yield found["id"], rows


def of_set(txn: Snapshot, id: str) -> list[sqlite3.Row]:
    """The rows of a set's jobs in the order of their output commits: upstream first."""
    commit = (
        "SELECT c.pk FROM commits c JOIN repos r ON r.pk=c.repo_pk WHERE c.id=j.id AND r.project=p.project "
        "AND r.name=p.name AND r.type='user'"
    )
    return txn.db.execute(_SELECT + f"WHERE j.id=? ORDER BY ({commit}) IS NULL, ({commit}), j.pk", (id,)).fetchall()


def sets_downstream(txn: Snapshot, commit: pfs_pb2.Commit) -> set[str]:
    """The IDs of the commit sets in which something was made of a commit; none for one that is not there.

    Nor for one whose project or type of repo is left out: Pachyderm looks for the commit's full name.
    """
    if not commit.repo.project.name or not commit.repo.type:
        return set()
    found = txn.db.execute(
        "WITH RECURSIVE down (pk) AS (SELECT v.commit_pk FROM commit_provenance v JOIN commits c ON c.pk=v.source_pk "
        "JOIN repos r ON r.pk=c.repo_pk WHERE c.id=? AND r.project=? AND r.name=? AND r.type=? UNION "
        "SELECT v.commit_pk FROM commit_provenance v JOIN down ON v.source_pk=down.pk) "
        "SELECT DISTINCT c.id FROM commits c JOIN down ON down.pk=c.pk",
        (commit.id, *refs.repo_of(commit.repo)._replace(type=commit.repo.type or "user")),
    )
    return {row["id"] for row in found}


def output_commits(txn: Snapshot, row: sqlite3.Row) -> list[Any]:
    """The rows of the job's output and meta commits, those that exist."""
    found = []
    for kind in ("user", "meta"):
        try:
            found.append(refs.resolve_commit(txn, (Repo(row["project"], row["name"], kind), row["id"])))
        except NotFound:
            continue
    return found


def finish(txn: Txn, row: sqlite3.Row, state: int, reason: str = "") -> None:
    """End a job that has not ended: set its state and finish its output and meta commits (with ``reason`` as error).

    Commits that fail validation turn a success into a FAILURE with the commit's error as reason.
    """
    current = txn.db.execute("SELECT state FROM pps_jobs WHERE pk=?", (row["pk"],)).fetchone()
    if current is None or current["state"] in TERMINAL:
        return
    error = "" if state == SUCCESS else reason
    found = output_commits(txn, row)
    for commit in found:
        if commit.state == pfs_pb2.STARTED:
            commits.finish_commit(txn, Commit(commit.repo, commit.id), error=error, force=True)
    if state == SUCCESS:
        for commit in found:
            error = refs.resolve_commit(txn, (commit.repo, commit.id)).error
            if error:
                state, reason = FAILURE, error
                break
    txn.db.execute(
        "UPDATE pps_jobs SET state=?, reason=?, finished=?, started=CASE WHEN started=0 AND ? THEN ? "
        "ELSE started END WHERE pk=?",
        (state, reason, txn.now, state != SUCCESS, txn.now, row["pk"]),
    )
    txn.db.execute("DELETE FROM pps_datums WHERE job=? AND state='PROCESSED'", (row["pk"],))


def stop(txn: Txn, job: pps_pb2.Job, reason: str = "") -> None:
    """Kill a job; one that has ended stays as it is. NotFound, or PachError when none is named."""
    finish(txn, find(txn, job), KILLED, reason or "job stopped")


def stop_all(txn: Txn, pipeline: int, reason: str) -> None:
    """Kill every unfinished job of a pipeline."""
    for row in txn.db.execute(_SELECT + "WHERE j.pipeline=? AND j.finished=0 ORDER BY j.pk", (pipeline,)).fetchall():
        finish(txn, row, KILLED, reason)


def update_state(txn: Txn, request: pps_pb2.UpdateJobStateRequest) -> None:
    """What a worker says of its job; NotFound, or PachError when the job has ended."""
    if request.job.HasField("pipeline") and not request.job.pipeline.project.name:
        raise NotFound(f"jobs {request.job.pipeline.name}@{request.job.id} not found")
    row = find(txn, request.job)
    if row["state"] in TERMINAL:
        raise PachError(f"job {row['project']}/{row['name']}@{row['id']} has already finished")
    stats = request.stats
    txn.db.execute(
        "UPDATE pps_jobs SET restarts=?, processed=?, skipped=?, failed=?, recovered=?, total=?, download_time=?, "
        "process_time=?, upload_time=?, download_bytes=?, upload_bytes=? WHERE pk=?",
        (
            request.restart,
            request.data_processed,
            request.data_skipped,
            request.data_failed,
            request.data_recovered,
            request.data_total,
            stats.download_time.ToNanoseconds() / 1e9,
            stats.process_time.ToNanoseconds() / 1e9,
            stats.upload_time.ToNanoseconds() / 1e9,
            stats.download_bytes,
            stats.upload_bytes,
            row["pk"],
        ),
    )
    if request.state in (*TERMINAL, FINISHING):
        finish(txn, row, SUCCESS if request.state == FINISHING else request.state, request.reason)
    else:
        txn.db.execute(
            "UPDATE pps_jobs SET state=?, reason=?, started=CASE WHEN started=0 AND ?=? THEN ? ELSE started END "
            "WHERE pk=?",
            (request.state, request.reason, request.state, RUNNING, txn.now, row["pk"]),
        )


def delete(txn: Txn, job: pps_pb2.Job) -> None:
    """Forget a job (its commits stay); one that runs is stopped first."""
    row = find(txn, job)
    finish(txn, row, KILLED, "job deleted")
    txn.db.execute("DELETE FROM pps_jobs WHERE pk=?", (row["pk"],))


def input_commits(txn: Snapshot, pipeline: pps_pb2.PipelineInfo, job: str) -> dict[Branch, Any]:
    """For every input branch the row of the commit that job ``job`` reads."""
    found = {}
    for leg in inputs.legs(pipeline.details.input):
        found[leg.branch] = refs.resolve_commit(txn, (leg.branch.repo, job))
    return found


def failed_upstream(txn: Snapshot, pipeline: pps_pb2.PipelineInfo, job: str) -> list[str]:
    """The names of the inputs whose commit for this job finished with an error, in the tree's order."""
    commits_of = input_commits(txn, pipeline, job)
    return [leg.name for leg in inputs.legs(pipeline.details.input) if commits_of[leg.branch].error]
