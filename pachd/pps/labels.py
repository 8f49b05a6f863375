"""Metadata that users attach to pipelines."""

from __future__ import annotations

from pachd.errors import NotFound, PachError
from pachd.pfs import metadata, pickers, refs
from pachd.pps import lookup
from pachd.proto import pps_pb2
from pachd.store import Txn
from pachd.types import Branch, Repo


def target(txn: Txn, picker: pps_pb2.PipelinePicker) -> metadata.Target:
    """The current version of the pipeline that a picker names. Raises NotFound, or PachError if it names none."""
    if not picker.HasField("name"):
        raise PachError("pipeline picker cannot be nil")
    try:
        project = pickers.pick_project(txn, picker.name.project)
    except PachError as error:
        raise error.wrapped("picking project") from None
    pipeline = pps_pb2.Pipeline(name=picker.name.name)
    pipeline.project.name = project
    try:
        row = lookup.find(txn, pipeline)
    except NotFound:
        spec = Repo(project, picker.name.name, "spec")
        told = f"{refs.missing_repo(txn, spec)}\nbranch (id=0, branch={Branch(spec, 'master')}) not found"
        raise NotFound(f"getting pipeline: getting branch: {told}") from None
    info = pps_pb2.PipelineInfo.FromString(row["info"])

    def save(new: dict[str, str]) -> None:
        info.metadata.clear()
        info.metadata.update(new)
        txn.db.execute(
            "UPDATE pps_versions SET info=? WHERE pipeline=? AND version=?",
            (info.SerializeToString(), row["pk"], row["shown"]),
        )

    output = Repo(pipeline.project.name, pipeline.name)
    return metadata.Target(f'repo "{output.project}/{output.name}.user"', dict(info.metadata), save, output)
