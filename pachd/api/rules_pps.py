"""Who may call what of pps_v2. A pipeline is as open as its output repo, and takes the right to read its inputs."""

import re
from typing import Any

from google.protobuf import json_format

from pachd.api.access import Access, Rule
from pachd.auth import bindings
from pachd.auth.resources import Resource, project_resource, repo_resource
from pachd.errors import NotFound, PachError
from pachd.pps import describe, inputs, jobs, pipelines
from pachd.proto import pps_pb2
from pachd.proto.auth_pb2 import Permission as P
from pachd.types import Repo

SIGNED_IN = Rule()


def _repo(pipeline: pps_pb2.Pipeline) -> Repo:
    """Return the output repo of a pipeline, also of one that is named with a version: `edges^`."""
    return Repo(pipeline.project.name or "default", re.split("[~^.]", pipeline.name)[0])


def _output(pipeline: pps_pb2.Pipeline) -> Resource:
    return repo_resource(_repo(pipeline))


def _known(access: Access, pipeline: pps_pb2.Pipeline) -> bool:
    """Return whether there is something to protect: what is missing is told of by the RPC itself."""
    return bool(pipeline.name) and bindings.exists(access.snapshot, _output(pipeline))


def _may_see(access: Access, pipeline: pps_pb2.Pipeline) -> bool:
    return access.may(project_resource(pipeline.project.name or "default"), P.PROJECT_LIST_REPO) or access.may(
        _output(pipeline), P.REPO_READ
    )


# --- pipelines ------------------------------------------------------------------------------------------------------


def _create(access: Access, request: pps_pb2.CreatePipelineRequest) -> None:
    pipeline = request.pipeline
    project = pipeline.project.name or "default"
    exists = pipelines.exists(access.snapshot, _repo(pipeline))
    if request.dry_run or (exists and not request.update):  # nothing is made, or it is told that it is there
        return
    _read_inputs(access, request.input, project, P.REPO_READ)
    if exists:
        access.need(_output(pipeline), P.REPO_WRITE)
    elif bindings.exists(access.snapshot, project_resource(project)):
        told = f"error creating output repo for {pipeline.name}: failed to create repo"
        access.need(project_resource(project), P.PROJECT_CREATE_REPO, told=told)
    told = f'error fixing ACLs on "{project}/{pipeline.name}"\'s input repos'
    _read_inputs(access, request.input, project, P.REPO_ADD_PIPELINE_READER, told=told)
    for node in inputs.walk(request.input):
        if node.HasField("cron"):  # it will be written to
            tick = repo_resource(Repo(node.cron.project or project, node.cron.repo))
            if bindings.exists(access.snapshot, tick):
                access.need(tick, P.REPO_ADD_PIPELINE_READER, told=told)
                access.need(tick, P.REPO_ADD_PIPELINE_WRITER, told=told)
        elif node.HasField("pfs") and node.pfs.HasField("trigger"):  # it will be given a branch
            source = repo_resource(Repo(node.pfs.project or project, node.pfs.repo))
            if bindings.exists(access.snapshot, source):
                access.need(source, P.REPO_CREATE_BRANCH)


def _create_v2(access: Access, request: Any) -> None:
    """Check a CreatePipelineV2Request, or what a transaction keeps of it."""
    if isinstance(request, pps_pb2.CreatePipelineTransaction):
        made = pps_pb2.CreatePipelineRequest()
        made.CopyFrom(request.create_pipeline_request)
        made.ClearField("dry_run")  # which a transaction does not know
        _create(access, made)
        return
    text, update = request.create_pipeline_request_json, request.update
    effective = pps_pb2.CreatePipelineRequest()
    json_format.Parse(pipelines.effective_json(access.snapshot, text), effective, ignore_unknown_fields=True)
    effective.update = update
    effective.dry_run = isinstance(request, pps_pb2.CreatePipelineV2Request) and request.dry_run
    _create(access, effective)


def _read_inputs(access: Access, source: pps_pb2.Input, project: str, *permissions: int, told: str = "") -> None:
    for node in inputs.walk(source):
        if node.HasField("pfs") and node.pfs.repo:
            resource = repo_resource(Repo(node.pfs.project or project, node.pfs.repo))
            if bindings.exists(access.snapshot, resource):
                access.need(resource, *permissions, told=told)


def _rerun(access: Access, request: Any) -> None:
    info = _info(access, request.pipeline)
    if info is not None:
        _read_inputs(access, info.details.input, info.pipeline.project.name, P.REPO_READ)
    _write(access, request)


def _info(access: Access, pipeline: pps_pb2.Pipeline) -> pps_pb2.PipelineInfo | None:
    try:
        return describe.inspect_pipeline(access.snapshot, pipeline, True)
    except NotFound:
        return None


def _write(access: Access, request: Any, told: str = "") -> None:
    if _known(access, request.pipeline):
        access.need(_output(request.pipeline), P.REPO_WRITE, told=told)


def _run_cron(access: Access, request: pps_pb2.RunCronRequest) -> None:
    info = _info(access, request.pipeline)
    for node in inputs.walk(info.details.input) if info is not None else ():
        if node.HasField("cron"):
            project = node.cron.project or request.pipeline.project.name or "default"
            access.need(repo_resource(Repo(project, node.cron.repo)), P.REPO_WRITE)


def _delete(access: Access, request: pps_pb2.DeletePipelineRequest) -> None:
    if request.all and not request.pipeline.name:
        _delete_each(access, [])
    elif _known(access, request.pipeline):  # it is stopped first
        _write(access, request, f"error stopping pipeline {_output(request.pipeline).name}")
        access.need(_output(request.pipeline), P.REPO_DELETE)


def _delete_some(access: Access, request: pps_pb2.DeletePipelinesRequest) -> None:
    _delete_each(access, [] if request.all else [p.name for p in request.projects] or [""])


def _delete_each(access: Access, projects: list[str]) -> None:
    infos = list(describe.list_pipelines(access.snapshot, projects))
    for info in infos:  # they are stopped first
        _write(access, info, f'stop pipeline "{_output(info.pipeline).name}"')
    for info in infos:
        if _known(access, info.pipeline):
            access.need(_output(info.pipeline), P.REPO_DELETE)


def _list_pipeline(access: Access, request: Any, info: Any) -> Any:
    return info if _may_see(access, info.pipeline) else None


def _summary(access: Access, request: Any, reply: pps_pb2.PipelinesSummaryResponse) -> Any:
    seen = pps_pb2.PipelinesSummaryResponse()
    for each in reply.summaries:
        if access.may(project_resource(each.project.name), P.PROJECT_LIST_REPO):
            seen.summaries.append(each)
    return seen


# --- jobs, datums, logs ---------------------------------------------------------------------------------------------


def _inspect_job(access: Access, request: pps_pb2.InspectJobRequest) -> None:
    if request.details and _known(access, request.job.pipeline):
        access.need(_output(request.job.pipeline), P.PIPELINE_LIST_JOB)


def _inspect_job_set(access: Access, request: pps_pb2.InspectJobSetRequest) -> None:
    if request.details:
        for row in jobs.of_set(access.snapshot, request.job_set.id):
            pipeline = jobs.message(row).pipeline
            if _known(access, pipeline):
                access.need(_output(pipeline), P.PIPELINE_LIST_JOB)


def _list_jobs(access: Access, request: Any) -> None:
    if request.pipeline.name:
        access.need(_output(request.pipeline), P.PIPELINE_LIST_JOB)


def _show_job(access: Access, request: Any, info: pps_pb2.JobInfo) -> pps_pb2.JobInfo | None:
    seen = not request.details or access.may(_output(info.job.pipeline), P.PIPELINE_LIST_JOB)
    return info if seen else None


def _show_job_set(access: Access, request: Any, info: pps_pb2.JobSetInfo) -> pps_pb2.JobSetInfo | None:
    seen = pps_pb2.JobSetInfo(job_set=info.job_set)
    seen.jobs.extend(job for job in info.jobs if _show_job(access, request, job) is not None)
    return seen if seen.jobs else None


def _write_job(access: Access, request: Any) -> None:
    if _known(access, request.job.pipeline):
        access.need(_output(request.job.pipeline), P.REPO_WRITE)


def _inspect_datum(access: Access, request: pps_pb2.InspectDatumRequest) -> None:
    if _known(access, request.datum.job.pipeline):
        access.need(_output(request.datum.job.pipeline), P.REPO_READ)


def _list_datum(access: Access, request: pps_pb2.ListDatumRequest) -> None:
    if request.HasField("input"):
        _read_inputs(access, request.input, "default", P.REPO_READ, P.REPO_LIST_FILE)
    elif _known(access, request.job.pipeline):
        access.need(_output(request.job.pipeline), P.REPO_READ)


def _create_datum(access: Access, request: pps_pb2.CreateDatumRequest) -> None:
    """Check the first message of the stream."""
    _read_inputs(access, request.start.input, "default", P.REPO_READ, P.REPO_LIST_FILE)


def _get_logs(access: Access, request: pps_pb2.GetLogsRequest) -> None:
    named = [p for p in (request.pipeline, request.job.pipeline, request.datum.job.pipeline) if p.name]
    if not named:
        if request.data_filters or request.HasField("datum"):
            raise PachError("must specify the Job or Pipeline that the datum is from to get logs for it")
        if not request.HasField("job"):
            access.need_cluster(P.CLUSTER_GET_PACHD_LOGS)
        return
    for pipeline in named:
        info = _info(access, pipeline)
        if info is not None:
            _read_inputs(access, info.details.input, info.pipeline.project.name, P.REPO_READ)
            access.need(_output(pipeline), P.REPO_READ)


def _project_defaults(access: Access, request: pps_pb2.SetProjectDefaultsRequest) -> None:
    project = project_resource(request.project.name or "default")
    access.need(project, P.PROJECT_SET_DEFAULTS, told="not allowed")


PPS = {
    "ActivateAuth": Rule(gate=(P.CLUSTER_AUTH_ACTIVATE,), only_active=True),
    "CreatePipeline": Rule(check=_create),
    "CreatePipelineV2": Rule(check=_create_v2),
    "InspectPipeline": SIGNED_IN,
    "ListPipeline": Rule(show=_list_pipeline),
    "DeletePipeline": Rule(check=_delete),
    "DeletePipelines": Rule(check=_delete_some),
    "StartPipeline": Rule(check=_write),
    "StopPipeline": Rule(check=_write),
    "RerunPipeline": Rule(check=_rerun),
    "RunPipeline": SIGNED_IN,  # it does nothing
    "RunCron": Rule(check=_run_cron),
    "CheckStatus": Rule(show=_list_pipeline),
    "PipelinesSummary": Rule(show=_summary),
    "DeleteAll": Rule(gate=(P.CLUSTER_DELETE_ALL,)),
    "InspectJob": Rule(check=_inspect_job),
    "InspectJobSet": Rule(check=_inspect_job_set),
    "ListJob": Rule(check=_list_jobs, show=_show_job),
    "ListJobSet": Rule(show=_show_job_set),
    "SubscribeJob": Rule(check=_list_jobs),
    "StopJob": Rule(check=_write_job),
    "DeleteJob": Rule(check=_write_job),
    "UpdateJobState": Rule(check=_write_job),
    "InspectDatum": Rule(check=_inspect_datum),
    "ListDatum": Rule(check=_list_datum),
    "CreateDatum": Rule(check=_create_datum),
    "RestartDatum": Rule(check=_write_job),
    "GetLogs": Rule(check=_get_logs),
    "CreateSecret": Rule(gate=(P.CLUSTER_CREATE_SECRET,)),
    "ListSecret": Rule(gate=(P.CLUSTER_LIST_SECRETS,)),
    "DeleteSecret": Rule(gate=(P.SECRET_DELETE,)),
    "InspectSecret": Rule(gate=(P.SECRET_INSPECT,)),
    "GetClusterDefaults": SIGNED_IN,
    "SetClusterDefaults": Rule(gate=(P.CLUSTER_SET_DEFAULTS,)),
    "GetProjectDefaults": SIGNED_IN,
    "SetProjectDefaults": Rule(check=_project_defaults),
    "RenderTemplate": SIGNED_IN,
    "ListTask": SIGNED_IN,
    "GetKubeEvents": SIGNED_IN,
    "QueryLoki": Rule(gate=(P.CLUSTER_GET_LOKI_LOGS,)),
    "RunLoadTest": SIGNED_IN,
    "RunLoadTestDefault": SIGNED_IN,
}
