"""pps_v2: pipelines."""

import itertools
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from google.protobuf.empty_pb2 import Empty

from pachd.api.filters import Filter, projects_of
from pachd.api.service import Call, read, write
from pachd.api.transaction import append
from pachd.errors import DeadlineExceeded, PachError
from pachd.pfs.projects import list_projects
from pachd.pps import cron, describe, pipelines, removal, secrets, spec
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn


class Pipelines:
    """CreatePipeline … PipelinesSummary."""

    async def CreatePipeline(self, call: Call) -> None:
        request = await call.request()
        await self._create(call, spec.to_json(request), request)
        await call.reply(Empty())

    async def CreatePipelineV2(self, call: Call) -> None:
        request = await call.request()
        effective = await self._create(call, request.create_pipeline_request_json, request)
        await call.reply(pps_pb2.CreatePipelineV2Response(effective_create_pipeline_request_json=effective))

    async def _create(self, call: Call, text: str, switches: Any) -> str:
        """Make what a spec says, or have a transaction make it; returns the effective spec as JSON text."""

        def run(txn: Txn) -> str:
            wanted = pipelines.prepare(txn, text, switches.update, switches.reprocess)
            if not switches.dry_run:
                secrets.check(txn, wanted.create_pipeline_request.transform)
                if call.transaction:
                    append(txn, call.transaction, "create_pipeline_v2", wanted)
                else:
                    pipelines.create(txn, wanted)
            return spec.to_json(wanted.create_pipeline_request)

        return await call.context.write(run)

    @read
    def InspectPipeline(self, snapshot: Snapshot, request: pps_pb2.InspectPipelineRequest, call: Call) -> Any:
        return describe.inspect_pipeline(snapshot, request.pipeline, request.details)

    @read
    def ListPipeline(self, snapshot: Snapshot, request: pps_pb2.ListPipelineRequest, call: Call) -> Any:
        with Filter(request.jqFilter, "pipeline") as wanted:
            found = (
                info
                for info in describe.list_pipelines(
                    snapshot,
                    projects_of(request),
                    request.pipeline if request.HasField("pipeline") else None,
                    request.history,
                    request.commit_set.id,
                )
                if wanted.matches(info)
            )
            size, index = request.page.page_size, request.page.page_index
            first = min(max(size * index, 0), sys.maxsize - max(size, 0))
            try:
                yield from itertools.islice(found, first, first + size if size > 0 else None)
            except DeadlineExceeded:
                raise
            except PachError as error:
                raise error.wrapped("could not list pipeline info") from None

    async def DeletePipeline(self, call: Call) -> None:
        """Stop it, then delete it: if that fails, it has been stopped. With `all` nothing is: see DeletePipelines."""
        request = await call.request()
        if not request.all:
            await call.context.write(lambda txn: removal.stop_before_delete(txn, request.pipeline, request.must_exist))
            await call.context.write(
                lambda txn: removal.delete_pipeline(txn, request.pipeline, request.force, request.keep_repo, False)
            )
        await call.reply(Empty())

    async def DeletePipelines(self, call: Call) -> None:
        request = await call.request()
        projects = [] if request.all else projects_of(request)
        deleted = []
        if request.all or projects:
            deleted = await self._delete_all(call, projects, request.force, request.keep_repo)
        await call.reply(pps_pb2.DeletePipelinesResponse(pipelines=deleted))

    async def _delete_all(
        self, call: Call, projects: Sequence[str], force: bool, keep_repo: bool
    ) -> list[pps_pb2.Pipeline]:
        def stop(txn: Txn) -> None:
            for pipeline in removal.names(txn, projects):
                pipelines.stop_pipeline(txn, pipeline)

        await call.context.write(stop)
        return await call.context.write(lambda txn: removal.delete_all(txn, projects, force, keep_repo))

    @write()
    def StartPipeline(self, txn: Txn, request: pps_pb2.StartPipelineRequest, call: Call) -> None:
        if not request.HasField("pipeline"):
            raise PachError("request.Pipeline cannot be nil")
        pipelines.start_pipeline(txn, request.pipeline)

    @write()
    def StopPipeline(self, txn: Txn, request: pps_pb2.StopPipelineRequest, call: Call) -> None:
        if not request.HasField("pipeline"):
            raise PachError("request.Pipeline cannot be nil")
        pipelines.stop_pipeline(txn, request.pipeline, request.must_exist)

    @write()
    def RerunPipeline(self, txn: Txn, request: pps_pb2.RerunPipelineRequest, call: Call) -> None:
        pipelines.rerun_pipeline(txn, request.pipeline, request.reprocess)

    @write()
    def RunPipeline(self, txn: Txn, request: pps_pb2.RunPipelineRequest, call: Call) -> None:
        raise PachError("unimplemented")

    async def RunCron(self, call: Call) -> None:
        request = await call.request()
        await call.context.ingest(lambda: cron.run_now(call.context.store, request.pipeline))
        await call.reply(Empty())

    @read
    def CheckStatus(self, snapshot: Snapshot, request: pps_pb2.CheckStatusRequest, call: Call) -> Any:
        wanted = request.project.name
        for info in describe.list_pipelines(snapshot, [wanted] if wanted else ()):
            if alert := _alert(info):
                response = pps_pb2.CheckStatusResponse(pipeline=info.pipeline, alerts=[alert])
                if request.HasField("project"):
                    response.project.CopyFrom(request.project)
                yield response

    @read
    def PipelinesSummary(self, snapshot: Snapshot, request: pps_pb2.PipelinesSummaryRequest, call: Call) -> Any:
        response = pps_pb2.PipelinesSummaryResponse()
        if any(not picker.HasField("name") for picker in request.projects):
            raise PachError("project picker is of an unknown type: <nil>")
        names = [picker.name for picker in request.projects]
        for name in names or [info.project.name for info in list_projects(snapshot)]:
            found = list(describe.list_pipelines(snapshot, [name]))
            if found:
                response.summaries.append(_summary(name, found))
        return response

    @write()
    def DeleteAll(self, txn: Txn, request: Empty, call: Call) -> None:
        removal.delete_all(txn, force=True)
        secrets.delete_all(txn)


def _alert(info: pps_pb2.PipelineInfo) -> str:
    """What is said of workers that run for longer than the maximumExpectedUptime, which is 0 if it is not given."""
    if not info.details.HasField("workers_started_at"):
        return ""
    started = info.details.workers_started_at
    over = time.time_ns() - started.ToNanoseconds() - info.details.maximum_expected_uptime.ToNanoseconds()
    if over <= 0:
        return ""
    name = f"{info.pipeline.project.name}/{info.pipeline.name}"
    second, _, fraction = started.ToJsonString().removesuffix("Z").replace("T", " ").partition(".")
    at = f"{second}.{fraction.rstrip('0')}".rstrip(".")
    return f"{name}: Started running at {at} +0000 UTC, exceeded maximum uptime by {_duration(over)}"


def _duration(ns: int) -> str:
    """A time in nanoseconds as Go writes it: `1h0m2.5s`, `350ms`."""
    for unit, size in ("ns", 1), ("µs", 10**3), ("ms", 10**6):
        if ns < size * 1000:
            return f"{Decimal(ns) / size:f}{unit}"
    hours, rest = divmod(ns, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    seconds = f"{Decimal(rest) / 10**9:f}s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def _summary(project: str, infos: list[pps_pb2.PipelineInfo]) -> pps_pb2.PipelinesSummary:
    summary = pps_pb2.PipelinesSummary()
    summary.project.name = project
    for info in infos:
        if info.state == pps_pb2.PIPELINE_PAUSED:
            summary.paused_pipelines += 1
        elif info.state in (pps_pb2.PIPELINE_FAILURE, pps_pb2.PIPELINE_CRASHING):
            summary.failed_pipelines += 1
        else:
            summary.active_pipelines += 1
        if info.last_job_state in (pps_pb2.JOB_FAILURE, pps_pb2.JOB_KILLED, pps_pb2.JOB_UNRUNNABLE):
            summary.unhealthy_pipelines += 1
    return summary
