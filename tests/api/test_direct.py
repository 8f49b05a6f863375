"""Calls that a thread carries out on a connection of its own: against a real pachd, and against h2 with odd habits."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingAckReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from pachd import calls, direct, wire
from pachd.client import Client, RpcError, parse_ref
from pachd.proto import pfs_pb2, version_pb2
from tests.processes import Pachd

VERSION = version_pb2.Version(major=2, minor=12)
REPLY = wire.frame(VERSION.SerializeToString())
BEGIN = [(":status", "200"), ("content-type", "application/grpc")]
END = [("grpc-status", "0")]


class Peer:
    """A server that answers every call as `answer(h2, stream, body)` has it."""

    def __init__(self, answer: Callable[[H2Connection, int, bytes], None]) -> None:
        self.answer = answer
        self.unsent: bytes | memoryview = b""  # of an answer, to be sent as the client's window opens
        self.requests: list[dict[str, str]] = []
        self.acked = 0
        self.called = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        bodies: dict[int, bytes] = {}
        stream = 0
        try:
            sock.sendall(h2.data_to_send())
            while data := sock.recv(1 << 16):
                for event in h2.receive_data(data):
                    if isinstance(event, RequestReceived):
                        self.requests.append(dict(event.headers))  # type: ignore[arg-type]
                        bodies[event.stream_id] = b""
                    elif isinstance(event, DataReceived):
                        bodies[event.stream_id] += event.data
                        h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, PingAckReceived):
                        self.acked += 1
                    elif isinstance(event, StreamEnded):
                        self.called.set()
                        stream = event.stream_id
                        self.answer(h2, stream, bodies.pop(stream))
                self._send_on(h2, stream)
                sock.sendall(h2.data_to_send())
        except (OSError, ProtocolError):  # the latter: what comes after the connection was closed with a GOAWAY
            pass
        finally:
            sock.close()

    def _send_on(self, h2: H2Connection, stream: int) -> None:
        while self.unsent:
            size = min(h2.local_flow_control_window(stream), h2.max_outbound_frame_size, len(self.unsent))
            if not size:
                return
            h2.send_data(stream, bytes(self.unsent[:size]))
            self.unsent = self.unsent[size:]
            if not self.unsent:
                h2.send_headers(stream, END, end_stream=True)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()
        for thread in self._threads:
            thread.join()

    def drop(self) -> None:
        """Cut all connections."""
        for sock in self._connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def peer(answer: Callable[[H2Connection, int, bytes], None]) -> Iterator[tuple[Peer, Client]]:
    """A peer and a client of it, whose calls may not need the event loop."""
    found = Peer(answer)
    try:
        with Client(found.address, timeout=60) as client, pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls, "run", lambda _: pytest.fail("the event loop was asked"))
            yield found, client
    finally:
        found.close()


def plain(h2: H2Connection, stream: int, body: bytes) -> None:
    h2.send_headers(stream, BEGIN)
    h2.send_data(stream, REPLY)
    h2.send_headers(stream, END, end_stream=True)


def padded(h2: H2Connection, stream: int, body: bytes) -> None:
    h2.send_headers(stream, BEGIN)
    for i in range(len(REPLY)):
        h2.send_data(stream, REPLY[i : i + 1], pad_length=7)
    h2.send_headers(stream, END, end_stream=True)


def long_headers(h2: H2Connection, stream: int, body: bytes) -> None:
    h2.send_headers(stream, [*BEGIN, *((f"x-{n}", f"{stream}-{n}" * 1000) for n in range(5))])
    h2.send_data(stream, REPLY)
    h2.send_headers(stream, [*END, ("x-last", "y" * 17_000)], end_stream=True)


def talkative(h2: H2Connection, stream: int, body: bytes) -> None:
    h2.ping(b"12345678")
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000, SettingCodes.HEADER_TABLE_SIZE: 0})
    h2.send_headers(stream, [(":status", "103"), ("link", "</x>")])
    plain(h2, stream, body)
    h2.ping(b"87654321")


@pytest.mark.parametrize("answer", [plain, padded, long_headers, talkative])
def test_whatever_http2_allows_is_understood(answer: Any) -> None:
    with peer(answer) as (server, client):
        for _ in range(5):
            assert client.version.GetVersion() == VERSION
        assert len(server._connections) == 1
        if answer is talkative:
            assert server.acked >= 8  # the last two are acknowledged with the next call


def test_metadata_and_deadline_are_sent() -> None:
    with peer(plain) as (server, client):
        client.version.GetVersion(metadata={"pach-transaction": "abc"}, timeout=30)
        client.version.GetVersion(metadata={"pach-transaction": "def"})
    first, second = server.requests
    assert first[":path"] == "/versionpb_v2.API/GetVersion" and first[":authority"] == server.address
    assert (first["pach-transaction"], first["grpc-timeout"]) == ("abc", "30S")
    assert (second["pach-transaction"], second["grpc-timeout"]) == ("def", "60S")


def test_a_reply_larger_than_the_window() -> None:
    version = version_pb2.Version(additional="x" * (wire.WINDOW + wire.WINDOW // 2))

    def large(h2: H2Connection, stream: int, body: bytes) -> None:
        h2.send_headers(stream, BEGIN)
        server.unsent = memoryview(wire.frame(version.SerializeToString()))

    with peer(large) as (server, client):
        assert client.version.GetVersion() == version
        server.answer = plain
        assert client.version.GetVersion() == VERSION
        assert len(server._connections) == 1


def test_an_error_is_the_servers_own_and_harms_no_other_call() -> None:
    def refuse(h2: H2Connection, stream: int, body: bytes) -> None:
        if stream == 1:
            message = ("grpc-message", "not %C3%BCber")
            h2.send_headers(stream, [*BEGIN, ("grpc-status", "5"), message], end_stream=True)
        else:
            plain(h2, stream, body)

    with peer(refuse) as (server, client):
        with pytest.raises(RpcError, match="^not über$") as caught:
            client.version.GetVersion()
        assert caught.value.code is Status.NOT_FOUND
        assert client.version.GetVersion() == VERSION
        assert len(server._connections) == 1


def test_a_reset_stream_and_a_server_that_leaves() -> None:
    def go(h2: H2Connection, stream: int, body: bytes) -> None:
        if len(server.requests) == 1:
            h2.reset_stream(stream, error_code=2)
        elif len(server.requests) == 2:
            plain(h2, stream, body)
            h2.close_connection(last_stream_id=stream)
        else:
            plain(h2, stream, body)

    with peer(go) as (server, client):
        with pytest.raises(RpcError, match="reset by remote party") as caught:
            client.version.GetVersion()
        assert caught.value.code is Status.UNAVAILABLE
        assert client.version.GetVersion() == VERSION
        assert client.version.GetVersion() == VERSION
        assert len(server._connections) == 3


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_http2_is_said(words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        with Client(f"127.0.0.1:{server.getsockname()[1]}", timeout=60) as client, pytest.raises(RpcError) as caught:
            client.version.GetVersion()
        thread.join()
        assert caught.value.code is Status.UNAVAILABLE


def test_closing_the_client_ends_a_call_that_waits() -> None:
    errors: list[RpcError] = []

    def call() -> None:
        try:
            client.version.GetVersion(timeout=None)
        except RpcError as error:
            errors.append(error)

    with peer(lambda h2, stream, body: None) as (server, client):
        thread = threading.Thread(target=call)
        thread.start()
        server.called.wait()
        client.close()
        thread.join()
        assert [error.code for error in errors] == [Status.UNAVAILABLE]
        server.answer = plain
        assert client.version.GetVersion() == VERSION  # it opens again


def test_a_deadline_is_kept_and_the_next_call_goes_through() -> None:
    with peer(lambda h2, stream, body: None) as (server, client):
        with pytest.raises(RpcError, match="did not answer in time") as caught:
            client.version.GetVersion(timeout=0.05)
        assert caught.value.code is Status.DEADLINE_EXCEEDED
        server.answer = plain
        assert client.version.GetVersion() == VERSION


def test_a_cut_connection_is_made_again() -> None:
    with peer(plain) as (server, client):
        assert client.version.GetVersion() == VERSION
        server.drop()
        client._direct[os.getpid()]._idle[0]._poll.poll()  # the end has arrived here
        assert client.version.GetVersion() == VERSION


def test_more_threads_than_connections(pachd_process: Pachd) -> None:
    count = 3 * direct.CONNECTIONS
    everybody = threading.Barrier(count)
    found: list[str] = []

    def work(n: int) -> None:
        ref = parse_ref(f"threads-{n}")
        everybody.wait()
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=ref.commit.repo))
        for i in range(10):
            client.pfs.ModifyFile(_put(ref, f"/{i}", b"%d" % n))
        info = client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=ref.commit.repo))
        found.append(info.repo.name)

    with Client(pachd_process.address, timeout=60) as client:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n in range(count):
            files = client.pfs.GlobFile(pfs_pb2.GlobFileRequest(commit=parse_ref(f"threads-{n}").commit, pattern="/*"))
            assert sum(1 for _ in files) == 10
    assert sorted(found) == sorted(f"threads-{n}" for n in range(count))


def _put(ref: pfs_pb2.File, path: str, data: bytes) -> Iterator[pfs_pb2.ModifyFileRequest]:
    yield pfs_pb2.ModifyFileRequest(set_commit=ref.commit)
    yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw={"value": data}))  # type: ignore[arg-type]


def test_large_requests_go_another_way(pachd_process: Pachd) -> None:
    ref = parse_ref("large-request:/f")
    with Client(pachd_process.address, timeout=60) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=ref.commit.repo))
        for size in (100, 16_000, 17_000, 200_000, 100):
            client.pfs.ModifyFile(_put(ref, f"/{size}", b"x" * size))
        sizes = {
            info.file.path: info.size_bytes
            for info in client.pfs.ListFile(pfs_pb2.ListFileRequest(file=parse_ref("large-request:/")))
        }
    assert sizes == {"/100": 200, "/16000": 16_000, "/17000": 17_000, "/200000": 200_000}
