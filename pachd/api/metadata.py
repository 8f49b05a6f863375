"""metadata: what users write on projects, repos, branches, commits and the cluster."""

from typing import Any

from pachd.api.service import Call, Service, write
from pachd.pfs import metadata
from pachd.proto import metadata_pb2
from pachd.store import Txn


class API(Service):
    name = "metadata.API"

    @write()
    def EditMetadata(self, txn: Txn, request: metadata_pb2.EditMetadataRequest, call: Call) -> Any:
        metadata.edit(txn, request.edits)
        return metadata_pb2.EditMetadataResponse()


SERVICES = [API]
