"""pps_v2: datums."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty

from pachd.api.service import Call, read
from pachd.errors import NotFound, PachError
from pachd.pfs import read as files
from pachd.pfs import refs
from pachd.pps import datums, inputs, jobs, meta, plan
from pachd.proto import pps_pb2
from pachd.store import Snapshot
from pachd.types import Repo


class Datums:
    """InspectDatum … RestartDatum."""

    context: Any

    @read
    def InspectDatum(self, snapshot: Snapshot, request: pps_pb2.InspectDatumRequest, call: Call) -> Any:
        if not request.datum.id:
            raise PachError("must specify a datum")
        if not request.datum.HasField("job"):
            raise PachError("must specify a job")
        view = _meta_view(snapshot, request.datum.job)
        if view is not None:
            try:
                entry = view.inspect(meta.path(request.datum.id))
            except NotFound:
                pass
            else:
                info = meta.datum_info(b"".join(view.read(entry)), request.datum.job)
                _state_of(snapshot, info, request.datum.job)
                return info
        job = request.datum.job
        name = f"{job.pipeline.project.name or 'default'}/{job.pipeline.name}@{job.id}"
        raise PachError(f"datum {request.datum.id} not found in job {name}")

    @read
    def ListDatum(self, snapshot: Snapshot, request: pps_pb2.ListDatumRequest, call: Call) -> Any:
        if request.HasField("input") and request.HasField("job"):
            raise PachError("cannot specify both job and input")
        if request.reverse and not request.number:
            raise PachError("number must be > 0 when reverse is set")
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
            infos = iter(found[: request.number] if request.number > 0 else found)
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
                    if not request.start.HasField("input"):
                        raise PachError("first message must specify an input")
                    await call.authorize(request)
                    wanted = request.start.number or 100
                    source = request.start.input
                    try:
                        iterator = iter(await call.context.read(partial(_all_datums, source=source)))
                    except PachError as error:
                        raise _streamed(error) from None
                elif not request.HasField("continue"):
                    raise PachError("subsequent messages must be a ContinueCreateDatumRequest message")
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


def _state_of(snapshot: Snapshot, info: pps_pb2.DatumInfo, job: pps_pb2.Job) -> None:
    """Add where the job's meta repo has what the datum read and wrote."""
    row = jobs.find(snapshot, job)
    commit = info.pfs_state.commit
    info.pfs_state.path, commit.id = f"/pfs/{info.datum.id}", row["id"]
    commit.branch.name = pps_pb2.PipelineInfo.FromString(row["info"]).details.output_branch
    for repo in (commit.repo, commit.branch.repo):
        repo.name, repo.type, repo.project.name = row["name"], "meta", row["project"]


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
    """The datums of an input that need not be one that a pipeline may have."""
    filled = pps_pb2.Input()
    filled.CopyFrom(source)
    inputs.fill(filled, "", "default")
    for part in inputs.walk(filled):
        _make_definite(snapshot, part)
    for datum in datums.create(filled, plan.glob(snapshot)):
        info = pps_pb2.DatumInfo(data=[meta.file_info(file) for file in datum.files])
        info.datum.id = datum.id
        info.stats.SetInParent()
        yield info


def _make_definite(snapshot: Snapshot, part: pps_pb2.Input) -> None:
    """Leave one kind of input, of its branch's head, in a node. Raises PachError, as every error is told here."""
    if part.HasField("cron"):
        raise PachError("can't list datums with a cron input, there will be no datums until the pipeline is created")
    found = {field.name for field, _ in part.ListFields()}
    kinds = [kind for kind in ("pfs", "union", "cross", "join", "group") if kind in found]
    if not kinds:
        raise PachError("unrecognized input type: ")
    for kind in kinds[1:]:
        part.ClearField(kind)
    if part.HasField("pfs"):
        branch = inputs.legs(part)[0].branch
        try:
            refs.resolve_commit(snapshot, (branch.repo, branch.name))
        except PachError as error:
            raise PachError(str(error)) from None
        part.pfs.ClearField("commit")
        part.pfs.glob = part.pfs.glob or "/"


def _streamed(error: PachError) -> PachError:
    """An error about an input as CreateDatum tells it."""
    told = str(error).replace("can't list datums with", "can't create datums with")
    step = "streaming iterate" if told.startswith("unrecognized input type") else "getting streaming iterator"
    return PachError(f"{step}: {told}")


def _all_datums(snapshot: Snapshot, source: pps_pb2.Input) -> list[pps_pb2.DatumInfo]:
    return list(_input_datums(snapshot, source))
