"""Metadata of a pipeline, asked over the wire."""

import pytest

from pachd.client import Client, RpcError
from pachd.proto import metadata_pb2, pps_pb2
from tests.pps.helpers import create, new_repo, pipeline

PICKER = pps_pb2.PipelinePicker(name={"project": {"name": "default"}, "name": "tagged"})


def edit(client: Client, *edits: metadata_pb2.Edit) -> None:
    client.metadata.EditMetadata(metadata_pb2.EditMetadataRequest(edits=edits))


def test_metadata_of_a_pipeline(pachd_process) -> None:
    with Client(pachd_process.address) as client:
        new_repo(client, "tagged_in")
        create(client, "tagged", "true", {"pfs": {"repo": "tagged_in", "glob": "/*"}})
        edit(client, metadata_pb2.Edit(pipeline=PICKER, add_key={"key": "team", "value": "red"}))
        edit(client, metadata_pb2.Edit(pipeline=PICKER, edit_key={"key": "team", "value": "blue"}))
        info = client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline("tagged"), details=True))
        assert dict(info.metadata) == {"team": "blue"}
        with pytest.raises(RpcError, match='add_key target key "team" already exists'):
            edit(client, metadata_pb2.Edit(pipeline=PICKER, add_key={"key": "team", "value": "x"}))
        with pytest.raises(RpcError, match="pick pipeline"):
            edit(client, metadata_pb2.Edit(pipeline={"name": {"name": "none"}}, add_key={"key": "a", "value": "b"}))
