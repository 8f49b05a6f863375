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

_BELOW = "embedded message failed validation | caused by"


class API(Service):
    name = "metadata.API"

    @write()
    def EditMetadata(self, txn: Txn, request: metadata_pb2.EditMetadataRequest, call: Call) -> Any:
        wrong = [
            f"invalid EditMetadataRequest.Edits[{number}]: {_BELOW}: {'; '.join(found)}"
            for number, edit in enumerate(request.edits)
            if (found := _problems(edit))
        ]
        if wrong:
            raise InvalidArgument(f"validate request: {'; '.join(wrong)}")
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


def _problems(edit: metadata_pb2.Edit) -> list[str]:
    """What is wrong with an edit, in the words of Pachyderm's validators: parts that are missing, and keys."""
    found = []
    if edit.WhichOneof("target") is None:
        found.append("invalid Edit.Target: value is required")
    kind = edit.WhichOneof("op")
    if kind is None:
        return [*found, "invalid Edit.Op: value is required"]
    keys = edit.replace.replacement if kind == "replace" else (getattr(edit, kind).key,)
    if not all(keys):
        name = "".join(part.capitalize() for part in kind.split("_"))
        field = "Replacement[]" if kind == "replace" else "Key"
        short = f"invalid Edit_{name}.{field}: value length must be at least 1 runes"
        found.append(f"invalid Edit.{name}: {_BELOW}: {short}")
    return found


SERVICES = [API]
