"""The small gRPC server of long-lived workers, asked by real clients and by something that is none."""

import asyncio
import random
import socket
import threading

import grpc
import pytest
from grpclib.client import Channel

from pachd.api.worker import WorkerService
from pachd.proto import pps_pb2, worker_pb2

NEXT = "/pachyderm.worker.Worker/NextDatum"


@pytest.fixture
def service():
    found = WorkerService(lambda: pps_pb2.WorkerStatus(worker_id="w", job_id="j"))
    yield found
    found.close()


class Serving(threading.Thread):
    """Answers every NextDatum with `variables(its number, the error)` until it is told to stop."""

    def __init__(self, service, variables):
        super().__init__(daemon=True)
        self.service, self.variables, self.errors = service, variables, []
        self.start()

    def run(self):
        while (error := self.service.next(None)) is not None:
            self.errors.append(error)
            self.service.give(self.variables(len(self.errors), error))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.service.wake()
        self.join(120)
        assert not self.is_alive()


def caller(channel):
    return channel.unary_unary(
        NEXT,
        request_serializer=worker_pb2.NextDatumRequest.SerializeToString,
        response_deserializer=worker_pb2.NextDatumResponse.FromString,
    )


def ask(port):
    """A channel with a connection of its own: others to the same port share one, even while that is being closed."""
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])


def test_many_calls(service):
    with Serving(service, lambda n, error: [f"number={n}", f"said={error}"]) as serving, ask(service.port) as channel:
        call = caller(channel)
        for n in range(1, 1500):  # more than one window of bytes in either direction
            error = "x" * 100 * (n % 3)
            reply = call(worker_pb2.NextDatumRequest(error=error), metadata=[("n", str(n % 7))], timeout=120)
            assert list(reply.env) == [f"number={n}", f"said={error}"]
    assert len(serving.errors) == 1499


def test_replies_larger_than_the_windows(service):
    big = "x" * 3_000_000
    with Serving(service, lambda n, error: [big, str(len(error))]) as _, ask(service.port) as channel:
        for size in (0, 2_000_000):
            reply = caller(channel)(worker_pb2.NextDatumRequest(error="e" * size), timeout=120)
            assert list(reply.env) == [big, str(size)]


def test_long_headers_and_the_status_beside_it(service):
    with Serving(service, lambda n, error: []) as _, ask(service.port) as channel:
        metadata = [(f"key-{i}", "v" * 700) for i in range(40)]
        try:
            caller(channel)(worker_pb2.NextDatumRequest(), metadata=metadata, timeout=120)
        except grpc.RpcError as error:  # grpcio refuses to send more than the peer's limit, which is not set here
            pytest.fail(f"{error}")
        status = channel.unary_unary(
            "/pachyderm.worker.Worker/Status", response_deserializer=pps_pb2.WorkerStatus.FromString
        )(b"", timeout=120)
        assert (status.worker_id, status.job_id) == ("w", "j")
        with pytest.raises(grpc.RpcError) as found:
            channel.unary_unary("/pachyderm.worker.Worker/Nothing")(b"", timeout=120)
        assert found.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "/pachyderm.worker.Worker/Nothing" in found.value.details()
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(NEXT)(b"\xff\xff", timeout=120)


def test_another_client(service):
    async def calls():
        channel = Channel("127.0.0.1", service.port)
        try:
            from grpclib.client import UnaryUnaryMethod

            method = UnaryUnaryMethod(channel, NEXT, worker_pb2.NextDatumRequest, worker_pb2.NextDatumResponse)
            return [list((await method(worker_pb2.NextDatumRequest(error=str(i)))).env) for i in range(300)]
        finally:
            channel.close()

    with Serving(service, lambda n, error: [error]) as _:
        assert asyncio.run(calls()) == [[str(i)] for i in range(300)]


def test_what_is_no_client_disturbs_nobody(service):
    with Serving(service, lambda n, error: ["ok"]) as _:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, b"PRI"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=120) as sock:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                while True:
                    try:
                        if not sock.recv(4096):
                            break
                    except ConnectionResetError:
                        break
        with ask(service.port) as channel:
            assert list(caller(channel)(worker_pb2.NextDatumRequest(), timeout=120).env) == ["ok"]


def test_random_frames_disturb_nobody(service):
    chance = random.Random(7)
    with Serving(service, lambda n, error: ["ok"]) as _:
        for _round in range(150):
            data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            for _frame in range(chance.randrange(1, 8)):
                payload = chance.randbytes(chance.choice([0, 1, 4, 5, 8, 30]))
                kind, flags = chance.randrange(11), chance.choice([0, 1, 4, 5, 8, 13, 45])
                stream = chance.choice([0, 1, 1, 3]).to_bytes(4, "big")
                data += len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream + payload
            with socket.create_connection(("127.0.0.1", service.port), timeout=120) as sock:
                try:
                    sock.sendall(data)
                except ConnectionError:
                    pass
        with ask(service.port) as channel:
            assert list(caller(channel)(worker_pb2.NextDatumRequest(), timeout=120).env) == ["ok"]


def test_bytes_that_come_one_by_one(service):
    """A client's bytes, cut as badly as can be."""
    recorded = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def relay():
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", service.port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def back():
            while data := server.recv(4096):
                client.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        while data := client.recv(4096):
            recorded.extend(data)
            for byte in data:
                server.send(bytes((byte,)))
        server.close()

    threading.Thread(target=relay, daemon=True).start()
    with Serving(service, lambda n, error: [error]) as _, ask(listener.getsockname()[1]) as channel:
        for n in range(3):
            assert list(caller(channel)(worker_pb2.NextDatumRequest(error=f"{n}"), timeout=120).env) == [f"{n}"]
    assert recorded
    listener.close()


def test_timeouts_wakes_and_calls_nobody_waits_for(service):
    with pytest.raises(TimeoutError):
        service.next(0.01)
    service.wake()
    assert service.next(None) is None
    channel = ask(service.port)
    future = caller(channel).future(worker_pb2.NextDatumRequest(error="gone"))
    assert service.next(120) == "gone"
    service.reset()
    with pytest.raises(grpc.RpcError):
        future.result(timeout=120)
    channel.close()
    channel = ask(service.port)
    future = caller(channel).future(worker_pb2.NextDatumRequest(error="cancelled"), wait_for_ready=True)
    assert service.next(120) == "cancelled"
    future.cancel()
    again = caller(channel).future(worker_pb2.NextDatumRequest(error="second"), wait_for_ready=True)
    assert service.next(120) == "second"
    service.give(["a=b"])
    assert list(again.result(timeout=120).env) == ["a=b"]
    channel.close()
