"""What SetLogLevel refuses."""

from collections.abc import Iterator

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import debug_pb2
from tests.processes import Pachd


@pytest.fixture
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address) as client:
        yield client


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ({}, "no level provided"),
        ({"grpc": "UNKNOWN"}, "cannot set grpc log level to UNKNOWN"),
        ({"pachyderm": "UNKNOWN"}, "cannot set log level to UNKNOWN"),
        ({"pachyderm": "OFF"}, "cannot set log level to OFF"),
        ({"pachyderm": 77}, "cannot set log level to 77"),
    ],
)
def test_levels_that_cannot_be_set(client: Client, level: dict[str, str], told: str) -> None:
    with pytest.raises(RpcError) as caught:
        client.debug.SetLogLevel(debug_pb2.SetLogLevelRequest(**level))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.message) == (Status.INVALID_ARGUMENT, told)
