"""pps_v2: access control takes in the pipelines that were there before it."""

from typing import Any

from pachd.api.service import Call, write
from pachd.pps import access
from pachd.proto import pps_pb2
from pachd.store import Txn


class Activation:
    """ActivateAuth."""

    @write()
    def ActivateAuth(self, txn: Txn, request: pps_pb2.ActivateAuthRequest, call: Call) -> Any:
        access.connect_all(txn)
        return pps_pb2.ActivateAuthResponse()
