"""pps_v2: pipelines, jobs, datums, logs, secrets, defaults."""

import asyncio
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty

from pachd.api.service import Call, Service, read, write
from pachd.api.transaction import append
from pachd.api.worker import worker_service
from pachd.errors import NotFound, PachError, Unimplemented
from pachd.pfs import read as files
from pachd.pfs import refs
from pachd.pps import datums, defaults, hooks, inputs, jobs, logs, meta, pipelines, plan, secrets
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Repo

assert hooks  # imported for what it connects
_STATE = re.compile(r'\.state\s*==\s*"(\w+)"')
_FOLLOW = 0.2  # seconds between looks at a growing log


def _wanted_states(expression: str, enum: Any) -> set[int] | None:
    """The states that a jqFilter asks for; only what pachctl's --state makes is understood."""
    if not expression.strip():
        return None
    rest = re.sub(r"[\s()]|\bor\b|select", "", _STATE.sub("", expression)).strip("|.")
    names = _STATE.findall(expression)
    if rest or not names:
        raise Unimplemented(
            f'this pachd understands only filters of the form .state == "NAME" (joined by "or"), not: {expression}'
        )
    return {enum.Value(name) for name in names if name in enum.keys()}


def _projects(request: Any) -> list[str]:
    return [project.name or "default" for project in request.projects]


def _terminal(state: int) -> bool:
    return state in jobs.TERMINAL


class Pipelines:
    """CreatePipeline … PipelinesSummary."""

    @write(transactional="create_pipeline")
    def CreatePipeline(self, txn: Txn, request: pps_pb2.CreatePipelineRequest, call: Call) -> None:
        pipelines.create(txn, request)

    async def CreatePipelineV2(self, call: Call) -> None:
        request = await call.request()

        def run(txn: Txn) -> str:
            switches = (request.update, request.reprocess, request.dry_run)
            if not call.transaction:
                return pipelines.create_v2(txn, request.create_pipeline_request_json, *switches)
            text = request.create_pipeline_request_json
            kept = pps_pb2.CreatePipelineTransaction(user_json=text, effective_json=pipelines.effective_json(txn, text))
            kept.create_pipeline_request.update, kept.create_pipeline_request.reprocess = switches[:2]
            append(txn, call.transaction, "create_pipeline_v2", kept)
            return kept.effective_json

        effective = await call.context.write(run)
        await call.reply(pps_pb2.CreatePipelineV2Response(effective_create_pipeline_request_json=effective))

    @read
    def InspectPipeline(self, snapshot: Snapshot, request: pps_pb2.InspectPipelineRequest, call: Call) -> Any:
        return pipelines.inspect_pipeline(snapshot, request.pipeline, request.details)

    @read
    def ListPipeline(self, snapshot: Snapshot, request: pps_pb2.ListPipelineRequest, call: Call) -> Any:
        states = _wanted_states(request.jqFilter, pps_pb2.PipelineState)
        found = (
            info
            for info in pipelines.list_pipelines(
                snapshot, _projects(request), request.pipeline, request.history, request.commit_set.id
            )
            if states is None or info.state in states
        )
        if request.page.page_size:
            first = request.page.page_size * request.page.page_index
            return iter(list(found)[first : first + request.page.page_size])
        return found

    @write()
    def DeletePipeline(self, txn: Txn, request: pps_pb2.DeletePipelineRequest, call: Call) -> None:
        if request.all and not request.pipeline.name:
            pipelines.delete_all(txn, (), request.force, request.keep_repo)
            return
        pipelines.delete_pipeline(txn, request.pipeline, request.force, request.keep_repo, request.must_exist)

    @write()
    def DeletePipelines(self, txn: Txn, request: pps_pb2.DeletePipelinesRequest, call: Call) -> Any:
        projects = [] if request.all else _projects(request) or ["default"]
        deleted = pipelines.delete_all(txn, projects, request.force, request.keep_repo)
        return pps_pb2.DeletePipelinesResponse(pipelines=deleted)

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

    @read
    def RunCron(self, snapshot: Snapshot, request: pps_pb2.RunCronRequest, call: Call) -> None:
        row = pipelines.find(snapshot, request.pipeline)
        details = pps_pb2.PipelineInfo.FromString(row["info"]).details
        if not any(part.HasField("cron") for part in inputs.walk(details.input)):
            raise PachError("pipeline doesn't have a cron input")
        raise Unimplemented("this pachd does not tick cron inputs yet")

    @read
    def CheckStatus(self, snapshot: Snapshot, request: pps_pb2.CheckStatusRequest, call: Call) -> Any:
        wanted = request.project.name if request.HasField("project") else ""
        for info in pipelines.list_pipelines(snapshot, [wanted] if wanted else ()):
            if info.reason:
                yield pps_pb2.CheckStatusResponse(
                    project=info.pipeline.project, pipeline=info.pipeline, alerts=[info.reason]
                )

    @read
    def PipelinesSummary(self, snapshot: Snapshot, request: pps_pb2.PipelinesSummaryRequest, call: Call) -> Any:
        response = pps_pb2.PipelinesSummaryResponse()
        for picker in request.projects:
            summary = response.summaries.add()
            summary.project.name = picker.name or "default"
            for info in pipelines.list_pipelines(snapshot, [summary.project.name]):
                if info.state == pps_pb2.PIPELINE_PAUSED:
                    summary.paused_pipelines += 1
                elif info.state in (pps_pb2.PIPELINE_FAILURE, pps_pb2.PIPELINE_CRASHING):
                    summary.failed_pipelines += 1
                else:
                    summary.active_pipelines += 1
                if info.last_job_state in (pps_pb2.JOB_FAILURE, pps_pb2.JOB_KILLED, pps_pb2.JOB_UNRUNNABLE):
                    summary.unhealthy_pipelines += 1
        return response

    @write()
    def DeleteAll(self, txn: Txn, request: Empty, call: Call) -> None:
        pipelines.delete_all(txn)


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
        while True:
            version = context.version
            info = await context.read(lambda s: self._job_info(jobs.find(s, request.job), request.details))
            if not request.wait or _terminal(info.state):
                await call.reply(info)
                return
            await context.newer(version)

    async def InspectJobSet(self, call: Call) -> None:
        request = await call.request()
        context = call.context
        sent: set[tuple[str, str]] = set()
        while True:
            version = context.version
            found = await context.read(
                lambda s: [
                    self._job_info(row, request.details) for row in jobs.list_jobs(s, job_set=request.job_set.id)
                ]
            )
            waiting = False
            for info in reversed(found):
                key = (info.job.pipeline.project.name, info.job.pipeline.name)
                if request.wait and not _terminal(info.state):
                    waiting = True
                elif key not in sent:
                    sent.add(key)
                    await call.reply(info)
            if not waiting:
                return
            await context.newer(version)

    @read
    def ListJob(self, snapshot: Snapshot, request: pps_pb2.ListJobRequest, call: Call) -> Any:
        states = _wanted_states(request.jqFilter, pps_pb2.JobState)
        pipeline = request.pipeline if request.pipeline.name else None
        before = request.paginationMarker.ToNanoseconds() if request.HasField("paginationMarker") else 0
        rows = jobs.list_jobs(
            snapshot, _projects(request), pipeline, request.history, before=before, reverse=request.reverse
        )
        wanted = {refs_id for commit in request.input_commit if (refs_id := _commit_id(snapshot, commit))}
        number = request.number

        def found() -> Iterator[pps_pb2.JobInfo]:
            count = 0
            for row in rows:
                if states is not None and row["state"] not in states:
                    continue
                if request.input_commit and not _reads(snapshot, row, wanted):
                    continue
                yield self._job_info(row, request.details)
                count += 1
                if number and count >= number:
                    return

        return found()

    @read
    def ListJobSet(self, snapshot: Snapshot, request: pps_pb2.ListJobSetRequest, call: Call) -> Any:
        states = _wanted_states(request.jqFilter, pps_pb2.JobState)
        before = request.paginationMarker.ToNanoseconds() if request.HasField("paginationMarker") else 0
        for id, rows in jobs.list_sets(snapshot, _projects(request), before, request.number, request.reverse):
            found = [self._job_info(row, request.details) for row in rows if states is None or row["state"] in states]
            if found:
                yield pps_pb2.JobSetInfo(job_set=pps_pb2.JobSet(id=id), jobs=found)

    async def SubscribeJob(self, call: Call) -> None:
        """Send every job of a pipeline's versions, oldest first, and again whenever its state changed; never ends."""
        request = await call.request()
        context = call.context
        sent: dict[str, int] = {}
        while True:
            version = context.version
            found = await context.read(
                lambda s: [
                    self._job_info(row, request.details)
                    for row in jobs.list_jobs(s, pipeline=request.pipeline, history=-1, reverse=True)
                ]
            )
            for info in found:
                if sent.get(info.job.id) != info.state:
                    sent[info.job.id] = info.state
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


def _commit_id(snapshot: Snapshot, commit: Any) -> str:
    return str(refs.resolve_commit(snapshot, commit).id)


def _reads(snapshot: Snapshot, row: Any, wanted: set[str]) -> bool:
    info = pps_pb2.PipelineInfo.FromString(row["info"])
    try:
        return wanted <= {commit.id for commit in jobs.input_commits(snapshot, info, row["id"]).values()}
    except NotFound:
        return False


class Datums:
    """InspectDatum … RestartDatum."""

    context: Any

    @read
    def InspectDatum(self, snapshot: Snapshot, request: pps_pb2.InspectDatumRequest, call: Call) -> Any:
        if not request.HasField("datum"):
            raise PachError("must specify a datum")
        view = _meta_view(snapshot, request.datum.job)
        if view is not None:
            try:
                entry = view.inspect(meta.path(request.datum.id))
            except NotFound:
                pass
            else:
                return meta.datum_info(b"".join(view.read(entry)), request.datum.job)
        raise NotFound(f"datum {request.datum.id} not found in job {request.datum.job.id}")

    @read
    def ListDatum(self, snapshot: Snapshot, request: pps_pb2.ListDatumRequest, call: Call) -> Any:
        if request.HasField("input"):
            infos = _input_datums(snapshot, request.input)
        elif request.HasField("job"):
            infos = _job_datums(snapshot, request.job)
        else:
            raise PachError("must specify a job")
        if request.filter.state:
            states = set(request.filter.state)
            infos = (info for info in infos if info.state in states)
        if request.number or request.reverse or request.paginationMarker:
            found = list(infos)
            if request.reverse:
                found.reverse()
            marker = request.paginationMarker
            if marker:
                found = [i for i in found if (i.datum.id < marker if request.reverse else i.datum.id > marker)]
            infos = iter(found[: request.number] if request.number else found)
        yield from infos

    async def CreateDatum(self, call: Call) -> None:
        """Send the datums of an input in lots, as many as the client asks for each time."""
        iterator: Iterator[pps_pb2.DatumInfo] | None = None
        async for batch in call.batches():
            for data in batch:
                request = call.parse(data)
                if iterator is None:
                    if not request.HasField("start"):
                        raise PachError("first message must be a StartCreateDatumRequest message")
                    wanted = request.start.number or 100
                    source = request.start.input
                    iterator = iter(await call.context.read(partial(_all_datums, source=source)))
                else:
                    wanted = getattr(request, "continue").number or 100
                for _ in range(wanted):
                    info = next(iterator, None)
                    if info is None:
                        return
                    await call.reply(info)

    async def RestartDatum(self, call: Call) -> None:
        request = await call.request()
        if not request.HasField("job"):
            raise PachError("must specify a job")
        await call.context.read(lambda s: jobs.find(s, request.job))
        engine = self.context.engine
        if engine is None:
            raise PachError("this pachd runs no pipelines")
        engine.restart_datum(request.job, list(request.data_filters))
        await call.reply(Empty())


def _meta_view(snapshot: Snapshot, job: pps_pb2.Job) -> Any:
    row = jobs.find(snapshot, job)
    try:
        commit = refs.resolve_commit(snapshot, (Repo(row["project"], row["name"], "meta"), row["id"]))
    except NotFound:
        return None
    return files.View.of(snapshot, commit)


def _job_datums(snapshot: Snapshot, job: pps_pb2.Job) -> Iterator[pps_pb2.DatumInfo]:
    view = _meta_view(snapshot, job)
    if view is None:
        return
    for entry in view.glob("/meta/*/meta"):
        yield meta.datum_info(b"".join(view.read(entry)), job)


def _input_datums(snapshot: Snapshot, source: pps_pb2.Input) -> Iterator[pps_pb2.DatumInfo]:
    filled = pps_pb2.Input()
    filled.CopyFrom(source)
    inputs.fill(filled, "", "default")
    inputs.validate(filled, "default")
    for datum in datums.create(filled, plan.glob(snapshot)):
        info = pps_pb2.DatumInfo(data=[meta.file_info(file) for file in datum.files])
        info.datum.id = datum.id
        info.stats.SetInParent()
        yield info


def _all_datums(snapshot: Snapshot, source: pps_pb2.Input) -> list[pps_pb2.DatumInfo]:
    return list(_input_datums(snapshot, source))


class Logs:
    """GetLogs."""

    async def GetLogs(self, call: Call) -> None:
        request = await call.request()
        job = request.job if request.HasField("job") else request.datum.job if request.HasField("datum") else None
        if job is None and not request.pipeline.name:
            if request.data_filters or request.HasField("datum"):
                raise PachError("must specify the Job or Pipeline that the datum is from to get logs for it")
            raise PachError('no pods belonging to the rc "pachd" were found')
        if job is not None and not job.pipeline.name:
            raise PachError("pipeline must be specified for the given job")
        if job is not None and request.pipeline.name and job.pipeline.name != request.pipeline.name:
            raise PachError("job is from the wrong pipeline")
        offsets: dict[str, int] = {}
        first = True
        context = call.context
        while True:
            version = context.version
            lines, ended = await context.read(lambda s: _lines(s, request, job, offsets))
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


def _lines(
    snapshot: Snapshot, request: pps_pb2.GetLogsRequest, job: pps_pb2.Job | None, offsets: dict[str, int]
) -> tuple[list[pps_pb2.LogMessage], bool]:
    """The lines since the last look, and whether the job has ended."""
    if job is not None:
        rows = [jobs.find(snapshot, job)]
    else:
        pipelines.find(snapshot, request.pipeline)
        rows = list(jobs.list_jobs(snapshot, pipeline=request.pipeline, history=-1, reverse=True))
    since = 0
    if request.since.ToNanoseconds():
        from pachd.store import system

        since = system.now_ns() - request.since.ToNanoseconds()
    found = []
    for row in rows:
        where = logs.path(snapshot.store.path, row["pipeline"], row["id"])
        for offset, value in logs.read(where, offsets.get(row["id"], 0), request.datum.id, request.data_filters, since):
            offsets[row["id"]] = offset
            found.append(_message(row, value))
    return found, all(_terminal(row["state"]) for row in rows)


def _message(row: Any, value: dict[str, Any]) -> pps_pb2.LogMessage:
    line = pps_pb2.LogMessage(
        project_name=row["project"],
        pipeline_name=row["name"],
        job_id=row["id"],
        worker_id=value.get("w", ""),
        datum_id=value.get("d", ""),
        user=bool(value.get("u")),
        message=value["m"],
    )
    line.ts.FromNanoseconds(value["ts"])
    for path, digest in value.get("f", ()):
        line.data.add(path=path, hash=bytes.fromhex(digest))
    return line


class Rest:
    """Secrets and defaults."""

    @write()
    def CreateSecret(self, txn: Txn, request: pps_pb2.CreateSecretRequest, call: Call) -> None:
        secrets.create_secret(txn, request.file)

    @write()
    def DeleteSecret(self, txn: Txn, request: pps_pb2.DeleteSecretRequest, call: Call) -> None:
        secrets.delete_secret(txn, request.secret.name)

    @read
    def ListSecret(self, snapshot: Snapshot, request: Empty, call: Call) -> Any:
        return secrets.list_secrets(snapshot)

    @read
    def InspectSecret(self, snapshot: Snapshot, request: pps_pb2.InspectSecretRequest, call: Call) -> Any:
        return secrets.inspect_secret(snapshot, request.secret.name)

    @read
    def GetClusterDefaults(self, snapshot: Snapshot, request: pps_pb2.GetClusterDefaultsRequest, call: Call) -> Any:
        return pps_pb2.GetClusterDefaultsResponse(cluster_defaults_json=defaults.cluster_json(snapshot))

    @write()
    def SetClusterDefaults(self, txn: Txn, request: pps_pb2.SetClusterDefaultsRequest, call: Call) -> Any:
        affected = defaults.replace_cluster(txn, request.cluster_defaults_json, request.dry_run)
        found = pipelines.affected(txn, "") if affected and request.regenerate else []
        if not request.dry_run:
            for pipeline in found:
                pipelines.regenerate(txn, pipeline, request.reprocess)
        return pps_pb2.SetClusterDefaultsResponse(affected_pipelines=found)

    @read
    def GetProjectDefaults(self, snapshot: Snapshot, request: pps_pb2.GetProjectDefaultsRequest, call: Call) -> Any:
        return defaults.project_response(snapshot, request.project.name or "default")

    @write()
    def SetProjectDefaults(self, txn: Txn, request: pps_pb2.SetProjectDefaultsRequest, call: Call) -> Any:
        project = request.project.name or "default"
        defaults.replace_project(txn, project, request.project_defaults_json, request.dry_run)
        found = pipelines.affected(txn, project) if request.regenerate else []
        if not request.dry_run:
            for pipeline in found:
                pipelines.regenerate(txn, pipeline, request.reprocess)
        return pps_pb2.SetProjectDefaultsResponse(affected_pipelines=found)


class API(Pipelines, Jobs, Datums, Logs, Rest, Service):
    name = "pps_v2.API"

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        if context.engine is not None:
            context.engine.worker_service = worker_service


SERVICES = [API]
