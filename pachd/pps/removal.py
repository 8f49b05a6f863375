"""Deleting pipelines, with their jobs and repos."""

from __future__ import annotations

from collections.abc import Sequence

from pachd.errors import NotFound, PachError
from pachd.pfs import repos
from pachd.pps import access, inputs, jobs, lookup, pipelines
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Repo


def stop_before_delete(txn: Txn, pipeline: pps_pb2.Pipeline, must_exist: bool = True) -> None:
    """What comes first when a pipeline is deleted; it stays stopped when it turns out that it cannot be."""
    try:
        pipelines.stop_pipeline(txn, pipeline, must_exist)
    except PachError as error:
        raise error.wrapped(f"error stopping pipeline {lookup.told(pipeline)}") from None


def delete_pipeline(
    txn: Txn, pipeline: pps_pb2.Pipeline, force: bool = False, keep_repo: bool = False, must_exist: bool = True
) -> None:
    """Delete a pipeline with its jobs and repos; ``keep_repo`` leaves the output repo as a plain one."""
    stop_before_delete(txn, pipeline, must_exist)
    try:
        row = lookup.find(txn, pipeline)
    except NotFound:
        return
    out = Repo(row["project"], row["name"], "user")
    stored = pps_pb2.PipelineInfo.FromString(row["info"])
    access.disconnect(txn, stored.pipeline)
    jobs.stop_all(txn, row["pk"], "pipeline deleted")
    txn.db.execute("DELETE FROM pps_pipelines WHERE pk=?", (row["pk"],))
    pipelines.connect(txn, stored, out, False)
    for kind in ("meta", "spec"):  # first: a repo that has a spec repo is a pipeline's
        repos.delete_repo(txn, Repo(out.project, out.name, kind), force=force)
    if not keep_repo:
        repos.delete_repo(txn, out, force=force)
    if stored.details.HasField("input"):
        for part in inputs.walk(stored.details.input):
            if part.HasField("cron"):
                repos.delete_repo(txn, Repo(part.cron.project, part.cron.repo, "user"), force=force)


def names(txn: Snapshot, projects: Sequence[str] = ()) -> list[pps_pb2.Pipeline]:
    """All pipelines (of these projects), the newest version first."""
    return [
        pps_pb2.PipelineInfo.FromString(row["info"]).pipeline
        for row in txn.db.execute(lookup.SELECT + "WHERE v.version=p.version ORDER BY v.updated DESC, v.spec_commit")
        if not projects or row["project"] in projects
    ]


def delete_all(
    txn: Txn, projects: Sequence[str] = (), force: bool = False, keep_repo: bool = False
) -> list[pps_pb2.Pipeline]:
    """Delete all pipelines (of these projects), downstream ones first; returns them, the newest version first."""
    found = names(txn, projects)
    left = list(found)
    while left:  # an update may have made an older pipeline the downstream one
        blocked: list[pps_pb2.Pipeline] = []
        error: PachError | None = None
        for pipeline in left:
            try:
                with txn.savepoint():
                    delete_pipeline(txn, pipeline, force, keep_repo)
            except PachError as problem:
                error = error or problem
                blocked.append(pipeline)
        if error is not None and len(blocked) == len(left):
            raise error
        left = blocked
    return found
