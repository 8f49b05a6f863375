"""pps_v2: what the code of pipelines printed."""

import asyncio
from typing import Any

from pachd.api.service import Call
from pachd.errors import NotFound, PachError
from pachd.pps import jobs, logs, lookup, spout
from pachd.proto import pps_pb2
from pachd.store import Snapshot, system

_FOLLOW = 0.2  # seconds between looks at a growing log


class Logs:
    """GetLogs."""

    async def GetLogs(self, call: Call) -> None:
        request = await call.request()
        job = request.job if request.HasField("job") else None
        if job is None and not request.HasField("pipeline"):
            if request.data_filters or request.HasField("datum"):
                raise PachError("must specify the Job or Pipeline that the datum is from to get logs for it")
            raise PachError('no pods belonging to the rc "pachd" were found')
        if job is not None and not job.pipeline.name:
            raise PachError("pipeline must be specified for the given job")
        if job is not None and request.HasField("pipeline") and _key(job.pipeline) != _key(request.pipeline):
            raise PachError("job is from the wrong pipeline")
        offsets: dict[str, int] = {}
        over: set[str] = set()
        first = True
        context = call.context
        while True:
            version = context.version
            lines, ended = await context.read(lambda s: _lines(s, request, job, offsets, over))
            if request.master:  # what the one that shares out the work says: nobody has to, here
                lines = []
            if first and request.tail > 0:
                lines = lines[-request.tail :]
            for line in lines:
                await call.reply(line)
            if first and request.follow and request.master and not lines:  # clients wait for a first line
                await call.reply(pps_pb2.LogMessage(master=True, message="no log lines"))
            if not request.follow or (job is not None and ended):
                return
            first = False
            try:  # lines come without a write to the store
                await asyncio.wait_for(context.newer(version), _FOLLOW)
            except TimeoutError:
                pass


def _key(pipeline: pps_pb2.Pipeline) -> tuple[str, str]:
    return pipeline.project.name or "default", pipeline.name


def _lines(
    snapshot: Snapshot,
    request: pps_pb2.GetLogsRequest,
    job: pps_pb2.Job | None,
    offsets: dict[str, int],
    over: set[str],
) -> tuple[list[pps_pb2.LogMessage], bool]:
    """The lines since the last look, and whether the job has ended.

    ``offsets`` are those up to which logs were read, ``over`` the jobs whose logs were read to their end.
    """
    rows: list[Any]
    if job is not None:
        try:
            rows = [jobs.find(snapshot, job)]
        except NotFound as error:
            raise NotFound(f'could not get job information for "{job.id}": {error}') from None
    else:
        try:
            row = lookup.find(snapshot, request.pipeline)
        except PachError as error:
            raise error.wrapped(f"could not get pipeline information for {lookup.told(request.pipeline)}") from None
        standing = {"project": row["project"], "name": row["name"], "pipeline": row["pk"], "id": spout.JOB}
        rows = [{**standing, "state": pps_pb2.JOB_RUNNING}]
        rows += list(jobs.list_jobs(snapshot, pipeline=request.pipeline, history=-1, reverse=True))
    since = 0
    if request.since.ToNanoseconds():
        since = system.now_ns() - request.since.ToNanoseconds()
    found = []
    for row in rows:
        if row["id"] in over:
            continue
        where = logs.path(snapshot.store.path, row["pipeline"], row["id"])
        for offset, value in logs.read(where, offsets.get(row["id"], 0), request.datum.id, request.data_filters, since):
            offsets[row["id"]] = offset
            found.append(_message(row, value))
        if jobs.terminal(row["state"]):
            over.add(row["id"])
    return found, all(jobs.terminal(row["state"]) for row in rows)


def _message(row: Any, value: dict[str, Any]) -> pps_pb2.LogMessage:
    line = pps_pb2.LogMessage(
        project_name=row["project"],
        pipeline_name=row["name"],
        job_id="" if row["id"] == spout.JOB else row["id"],
        worker_id=value.get("w", ""),
        datum_id=value.get("d", ""),
        user=bool(value.get("u")),
        message=value["m"],
    )
    line.ts.FromNanoseconds(value["ts"])
    for path, digest in value.get("f", ()):
        line.data.add(path=path, hash=bytes.fromhex(digest))
    return line
