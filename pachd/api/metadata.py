"""metadata: what users write on projects, repos, branches, commits and the cluster."""

from typing import Any

from pachd.api.guard import Pass
from pachd.api.service import Call, Service, write
from pachd.auth.resources import THE_CLUSTER, repo_resource
from pachd.errors import InvalidArgument
from pachd.pfs import metadata
from pachd.proto import metadata_pb2
from pachd.proto.auth_pb2 import Permission as P
from pachd.store import Txn
from pachd.types import Branch, Repo


class API(Service):
    name = "metadata.API"

    @write()
    def EditMetadata(self, txn: Txn, request: metadata_pb2.EditMetadataRequest, call: Call) -> Any:
        incomplete = []
        for number, edit in enumerate(request.edits):
            missing = [f"invalid Edit.{part}: value is required" for part in ("Target", "Op") if _lacks(edit, part)]
            if missing:
                incomplete.append(
                    f"invalid EditMetadataRequest.Edits[{number}]: embedded message failed validation | "
                    f"caused by: {'; '.join(missing)}"
                )
        if incomplete:
            raise InvalidArgument(f"validate request: {'; '.join(incomplete)}")
        access = call.access
        if access is None:
            metadata.edit(txn, request.edits)
        else:
            metadata.edit(txn, request.edits, lambda kind, of: _check(access, txn, kind, of))
        return metadata_pb2.EditMetadataResponse()


def _check(access: Pass, txn: Txn, kind: str, of: Repo | Branch | None) -> None:
    """Raise NotAuthorized if the caller may not edit this; anybody may edit that of projects and commits."""
    if isinstance(of, Branch):
        key = f"{of.repo.project}/{of.repo.name}.{of.repo.type}"
        told = f'check permissions on branch "{key}@{of.name}" of repo "{key}"'
        access.need(txn, repo_resource(of.repo), P.REPO_CREATE_BRANCH, told=told)
    elif of is not None:
        told = f'check permissions on repo "{of.project}/{of.name}.{of.type}"'
        access.need(txn, repo_resource(of), P.REPO_WRITE, told=told)
    elif kind == "cluster":
        access.need(txn, THE_CLUSTER, P.CLUSTER_EDIT_CLUSTER_METADATA, told="check cluster permissions")


def _lacks(edit: metadata_pb2.Edit, part: str) -> bool:
    return edit.WhichOneof("target" if part == "Target" else "op") is None


SERVICES = [API]
