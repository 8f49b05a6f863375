"""What the client says of connections that do not last."""

import pytest
from grpclib.const import Status
from grpclib.protocol import H2Protocol

from pachd import calls
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.processes import Pachd


def test_a_connection_lost_before_the_call_is_unavailable(
    pachd_process: Pachd, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = calls.Channel.__connect__

    async def connect_and_lose(channel: calls.Channel) -> H2Protocol:
        protocol = await connect(channel)
        protocol.connection_lost(None)
        return protocol

    monkeypatch.setattr(calls.Channel, "__connect__", connect_and_lose)
    with Client(pachd_process.address, timeout=30) as client, pytest.raises(RpcError, match="was lost") as caught:
        list(client.pfs.ListRepo(pfs_pb2.ListRepoRequest()))
    assert caught.value.code is Status.UNAVAILABLE
    monkeypatch.undo()
    with Client(pachd_process.address, timeout=30) as client:
        assert list(client.pfs.ListRepo(pfs_pb2.ListRepoRequest())) == []
