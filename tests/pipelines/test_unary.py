"""The calls of batched code, answered by grpcio's server, which speaks all of HTTP/2."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from pachd.api.worker import worker_service
from pachd.proto import worker_pb2
from pipelines.unary import Caller, CallError


@pytest.fixture
def port() -> Iterator[int]:
    """`/echo/Back` sends what it gets, `/echo/Fail` says it as an error, `/echo/Many` sends so many bytes."""

    def fail(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())
        return b""

    methods = {"Back": lambda request, _: request, "Fail": fail, "Many": lambda request, _: b"m" * int(request)}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    sizes = [("grpc.max_receive_message_length", 1 << 30), ("grpc.max_metadata_size", 1 << 20)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=sizes)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    found = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found
    server.stop(0).wait()


def test_many_calls_over_one_connection(port: int) -> None:
    with Caller(port) as caller:
        for n in range(500):
            assert caller.call("/echo/Back", b"%d" % n) == b"%d" % n
        assert caller.call("/echo/Back", b"") == b""


@pytest.mark.parametrize("size", [16_379, 16_380, 65_530, 65_531, 3_000_000])
def test_large_requests_and_replies(port: int, size: int) -> None:
    with Caller(port) as caller:
        for _ in range(3):  # windows are opened again
            assert caller.call("/echo/Back", b"x" * size) == b"x" * size
        assert caller.call("/echo/Many", b"%d" % size) == b"m" * size


def test_an_error_is_said_and_the_connection_goes_on(port: int) -> None:
    with Caller(port) as caller:
        for words in ("no such file", "häßlich: 100 %", "long " * 1000):
            with pytest.raises(CallError) as caught:
                caller.call("/echo/Fail", words.encode())
            assert str(caught.value) == words
            assert caller.call("/echo/Back", b"on") == b"on"
        with pytest.raises(CallError, match="Method not found"):
            caller.call("/echo/None", b"")


def test_a_server_that_is_not_there_or_goes_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = listener.getsockname()[1]
        with Caller(gone) as caller:
            connection, _ = listener.accept()
            connection.close()
            with pytest.raises(CallError, match="connection"):
                caller.call("/echo/Back", b"x")
    with pytest.raises(CallError, match="no connection to port"):
        Caller(gone)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\3\0\0\0\0\1" * 2, b"\0\0\1\1\4\0\0\0\1\xff"]
)
def test_what_is_no_http2_is_an_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Caller(listener.getsockname()[1]) as caller:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(CallError):
                caller.call("/echo/Back", b"x")


def test_a_worker_of_our_own() -> None:
    service = worker_service(lambda: None)
    errors = []

    def serve() -> None:
        for n in range(200):
            errors.append(service.next(None))
            service.give([f"N={n}", "V=" + "v" * (n * 700)])

    thread = threading.Thread(target=serve)
    thread.start()
    with Caller(service.port) as caller:
        for n in range(200):
            error = worker_pb2.NextDatumRequest(error="e" * (n * 500)).SerializeToString()
            reply = caller.call("/pachyderm.worker.Worker/NextDatum", error)
            assert list(worker_pb2.NextDatumResponse.FromString(reply).env) == [f"N={n}", "V=" + "v" * (n * 700)]
    thread.join()
    service.close()
    assert errors == ["e" * (n * 500) for n in range(200)]
