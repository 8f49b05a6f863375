"""pps_v2: secrets, defaults of specs, templates."""

from collections.abc import Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty

from pachd.api import templates
from pachd.api.service import Call, read, write
from pachd.errors import InvalidArgument, PachError
from pachd.pps import defaults, pipelines, secrets
from pachd.proto import pps_pb2, task_pb2
from pachd.store import Snapshot, Txn


class Settings:
    """Secrets, defaults, RenderTemplate."""

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
        found = _replace(txn, request, "", lambda: defaults.replace_cluster(txn, request.cluster_defaults_json))
        return pps_pb2.SetClusterDefaultsResponse(affected_pipelines=found)

    @read
    def GetProjectDefaults(self, snapshot: Snapshot, request: pps_pb2.GetProjectDefaultsRequest, call: Call) -> Any:
        return defaults.project_response(snapshot, request.project.name or "default")

    @write()
    def SetProjectDefaults(self, txn: Txn, request: pps_pb2.SetProjectDefaultsRequest, call: Call) -> Any:
        project = request.project.name or "default"
        found = _replace(
            txn, request, project, lambda: defaults.replace_project(txn, project, request.project_defaults_json)
        )
        return pps_pb2.SetProjectDefaultsResponse(affected_pipelines=found)

    @read
    def ListTask(self, snapshot: Snapshot, request: task_pb2.ListTaskRequest, call: Call) -> Any:
        """Tasks are how pachds of a cluster share work; one process has none to show."""
        if not request.HasField("group"):
            raise InvalidArgument("validate recv: invalid ListTaskRequest.Group: value is required")
        return iter(())

    async def RenderTemplate(self, call: Call) -> None:
        request = await call.request()
        await call.reply(await templates.render(request.template, dict(request.args)))


def _replace(txn: Txn, request: Any, project: str, replace: Callable[[], object]) -> list[pps_pb2.Pipeline]:
    """Replace defaults and update the pipelines that they change, or only say which those are."""
    with txn.savepoint() as point:
        replace()
        try:
            found = pipelines.affected(txn, project) if request.regenerate else []
        except PachError as error:
            raise PachError(f"unknown error: could not list pipelines: {error}") from None
        if request.dry_run:
            point.discard()
            return found
    try:
        for pipeline in found:
            pipelines.regenerate(txn, pipeline, request.reprocess)
    except PachError as error:
        kind = "project" if project else "cluster"
        raise PachError(f"unknown error: could not write {kind} defaults: {error}") from None
    return found
