"""pps_v2: jobs."""

from typing import Any

from pachd.api.filters import Filter, projects_of
from pachd.api.service import Call, read, write
from pachd.errors import DeadlineExceeded, NotFound, PachError
from pachd.pps import jobs
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn


class Jobs:
    """InspectJob … UpdateJobState."""

    context: Any

    def _job_info(self, row: Any, details: bool) -> pps_pb2.JobInfo:
        engine = self.context.engine
        workers = engine.workers(jobs.message(row)) if engine and details and row["state"] == jobs.RUNNING else ()
        return jobs.info(row, details, workers)

    async def InspectJob(self, call: Call) -> None:
        request = await call.request()
        if not request.HasField("job"):
            raise PachError("must specify a job")
        context = call.context
        waited = False
        while True:
            version = context.version
            try:
                info = await context.read(lambda s: self._job_info(jobs.find(s, request.job), request.details))
            except NotFound:
                if waited:
                    raise PachError(f"job {request.job.id} was deleted") from None
                raise
            if not request.wait or jobs.terminal(info.state):
                await call.reply(info)
                return
            waited = True
            await context.newer(version)

    async def InspectJobSet(self, call: Call) -> None:
        request = await call.request()
        context = call.context
        sent: set[tuple[str, str]] = set()
        while True:
            version = context.version
            found = await context.read(
                lambda s: [self._job_info(row, request.details) for row in jobs.of_set(s, request.job_set.id)]
            )
            waiting = False
            for info in found:
                key = (info.job.pipeline.project.name, info.job.pipeline.name)
                if key in sent:
                    continue
                if request.wait and not jobs.terminal(info.state):  # nothing overtakes what is upstream of it
                    waiting = True
                    break
                sent.add(key)
                await call.reply(info)
            if not waiting:
                return
            await context.newer(version)

    @read
    def ListJob(self, snapshot: Snapshot, request: pps_pb2.ListJobRequest, call: Call) -> Any:
        pipeline = request.pipeline if request.HasField("pipeline") else None
        before = request.paginationMarker.ToNanoseconds() if request.HasField("paginationMarker") else 0
        rows = jobs.list_jobs(
            snapshot, projects_of(request), pipeline, request.history, before=before, reverse=request.reverse
        )
        sets = [jobs.sets_downstream(snapshot, commit) for commit in request.input_commit]
        count = 0
        with Filter(request.jqFilter) as filter:
            for row in rows:
                if not all(row["id"] in ids for ids in sets):
                    continue
                info = self._job_info(row, request.details)
                if not filter.matches(info):
                    continue
                yield info
                count += 1
                if count == request.number:
                    return

    @read
    def ListJobSet(self, snapshot: Snapshot, request: pps_pb2.ListJobSetRequest, call: Call) -> Any:
        before = request.paginationMarker.ToNanoseconds() if request.HasField("paginationMarker") else 0
        count = 0
        with Filter(request.jqFilter) as filter:
            if request.number < 0:
                raise PachError("number must be non-negative")
            for id, rows in jobs.list_sets(snapshot, projects_of(request), before, request.reverse):
                infos = (self._job_info(row, request.details) for row in rows)
                try:
                    found = [info for info in infos if filter.matches(info)]
                except DeadlineExceeded as error:  # which Pachyderm does not tell from other failures, here
                    raise PachError(str(error)) from None
                if not found:
                    continue
                yield pps_pb2.JobSetInfo(job_set=pps_pb2.JobSet(id=id), jobs=found)
                count += 1
                if count == request.number:
                    return

    async def SubscribeJob(self, call: Call) -> None:
        """Send each unfinished job of a pipeline, then each new one, once; never ends."""
        request = await call.request()
        if not request.pipeline.name:
            raise PachError("pipeline must be specified")
        context = call.context
        after: int | None = None
        while True:
            version = context.version

            def look(snapshot: Snapshot, after: int | None = after) -> tuple[int, list[pps_pb2.JobInfo]]:
                rows = jobs.of_pipeline(snapshot, request.pipeline, after)
                return jobs.last_pk(snapshot), [self._job_info(row, request.details) for row in rows]

            after, found = await context.read(look)
            for info in found:
                await call.reply(info)
            await context.newer(version)

    @write(transactional="stop_job")
    def StopJob(self, txn: Txn, request: pps_pb2.StopJobRequest, call: Call) -> None:
        if not request.HasField("job"):
            raise PachError("Job must be specified")
        jobs.stop(txn, request.job, request.reason)

    @write()
    def DeleteJob(self, txn: Txn, request: pps_pb2.DeleteJobRequest, call: Call) -> None:
        if not request.HasField("job"):
            raise PachError("job cannot be nil")
        jobs.delete(txn, request.job)

    @write(transactional="update_job_state")
    def UpdateJobState(self, txn: Txn, request: pps_pb2.UpdateJobStateRequest, call: Call) -> None:
        jobs.update_state(txn, request)
