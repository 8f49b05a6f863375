"""metadata: what users write on projects, repos, branches, commits and the cluster."""

from typing import Any

from pachd.api.service import Call, Service, write
from pachd.errors import InvalidArgument
from pachd.pfs import metadata
from pachd.proto import metadata_pb2
from pachd.store import Txn


class API(Service):
    name = "metadata.API"

    @write()
    def EditMetadata(self, txn: Txn, request: metadata_pb2.EditMetadataRequest, call: Call) -> Any:
        for number, edit in enumerate(request.edits):
            missing = [f"invalid Edit.{part}: value is required" for part in ("Target", "Op") if _lacks(edit, part)]
            if missing:
                raise InvalidArgument(
                    f"validate request: invalid EditMetadataRequest.Edits[{number}]: "
                    f"embedded message failed validation | caused by: {'; '.join(missing)}"
                )
        metadata.edit(txn, request.edits)
        return metadata_pb2.EditMetadataResponse()


def _lacks(edit: metadata_pb2.Edit, part: str) -> bool:
    return edit.WhichOneof("target" if part == "Target" else "op") is None


SERVICES = [API]
