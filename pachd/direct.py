"""Calls that the calling thread carries out itself, without any other thread.

Most calls are a small message there and a reply back. Handing each to an event loop, and the reply back again, wakes
two threads and costs more than everything else on the client's side. So a thread that makes such a call sends it and
waits for its answer on a connection that it has to itself meanwhile; the frames of RFC 9113 are read and written here.
Whatever does not fit (large requests, streams of replies, TLS, more threads than connections) goes through
`pachd.calls`, with the same errors.
"""

import select
import socket
import time
from collections.abc import Mapping

import hpack
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from pachd import calls, http2, wire

CONNECTIONS = 4  # of one client; more threads than these share the event loop's connection
_LARGEST = 16384  # bytes of a request: what every server takes in one frame
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW = 65535
_RECEIVE = 256 << 10  # bytes per read, and of a frame that we take
_KEPT = 256  # blocks of headers that are remembered
_LAST_STREAM = 0x7FFFFFFF


def _setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def _increment(stream: int, size: int) -> bytes:
    return http2.frame_head(4, _WINDOW, 0, stream) + size.to_bytes(4, "big")


# no push; a large window per stream; large frames
_HELLO = _setting(_ENABLE_PUSH, 0) + _setting(_INITIAL_WINDOW_SIZE, wire.WINDOW) + _setting(_MAX_FRAME_SIZE, _RECEIVE)
_BEGIN = (
    _PREFACE + http2.frame_head(len(_HELLO), _SETTINGS, 0, 0) + _HELLO + _increment(0, wire.WINDOW - _INITIAL_WINDOW)
)


class _Connection:
    """An HTTP/2 connection with one call at a time. After any error but a GRPCError it is of no more use."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, dict[str, str]] = {}
        self._buffer = b""  # the beginning of a frame
        self._block = b""  # headers that are to be continued
        self._last = 0  # the flag END_STREAM of the headers that came last
        self._shrink = b""  # what tells the server that we keep to its smaller table of headers
        self._stream = -1
        self._window = self._first_window = _INITIAL_WINDOW  # what the server takes
        self._unread = wire.WINDOW  # what it may still send to us
        self._answers: list[dict[str, str]] = []  # headers, then trailers
        self._body: list[bytes] = []
        self._size = 0
        self._done = False
        self._leaving = False  # the server takes no more calls here
        self._socket.sendall(_BEGIN)

    def shut(self) -> None:
        """End what another thread waits for."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended already
            pass

    def close(self) -> None:
        self._socket.close()

    def ready(self, size: int) -> bool:
        """Whether a request of `size` bytes can be sent: asks what the server has said or done since the last call."""
        try:
            while self._poll.poll(0):
                self._receive()
        except (OSError, StreamTerminatedError):
            return False
        return not self._leaving and self._stream < _LAST_STREAM - 2 and size <= min(self._window, self._first_window)

    def call(self, headers: bytes, data: bytes, deadline: float | None) -> bytes | None:
        """Send a request, framed, and return the first reply, None if there is none.

        :param headers: an encoded block.
        :param deadline: by `time.monotonic`.
        :raises GRPCError, StreamTerminatedError, TimeoutError: as `calls.Call` does.
        """
        self._stream += 2
        self._answers, self._body, self._size, self._done = [], [], 0, False
        if self._shrink:
            headers, self._shrink = self._shrink + headers, b""
        head = http2.frame_head(len(headers), _HEADERS, _END_HEADERS, self._stream)
        self._wait_until(deadline)
        try:
            self._socket.sendall(head + headers + http2.frame_head(len(data), _DATA, _END_STREAM, self._stream) + data)
            self._window -= len(data)
            while not self._done:
                self._wait_until(deadline)
                self._receive()
        except ConnectionError as error:
            raise StreamTerminatedError(f"Connection lost: {error.strerror}") from None
        return self._reply()

    def _wait_until(self, deadline: float | None) -> None:
        if deadline is not None:
            self._socket.settimeout(_left(deadline))
        elif self._socket.gettimeout() is not None:
            self._socket.settimeout(None)

    def _reply(self) -> bytes | None:
        if not self._answers:
            raise StreamTerminatedError("an answer has no headers")
        first = self._answers[0]
        calls.check_headers(first)
        calls.check_status(first if "grpc-status" in first else self._answers[-1])
        body = b"".join(self._body)
        if not body:
            return None
        if body[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "this message is compressed in a way that is not supported")
        end = 5 + int.from_bytes(body[1:5], "big")
        if end > len(body):
            raise GRPCError(Status.INTERNAL, "the stream ended in the middle of a message")
        return body[5:end]

    # -- frames ----------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take what comes next."""
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise StreamTerminatedError("Connection lost")
        if self._buffer:
            data = self._buffer + data
        at, size = 0, len(data)
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > _RECEIVE:
                raise StreamTerminatedError(f"a frame of {length} bytes is longer than {_RECEIVE}")
            end = at + 9 + length
            if end > size:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & _LAST_STREAM
            try:
                self._take(data[at + 3], data[at + 4], stream, data[at + 9 : end])
            except IndexError:
                raise StreamTerminatedError("a frame is shorter than it says") from None
            at = end
        self._buffer = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(flags, stream, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            if kind == _HEADERS:
                if flags & _PADDED:
                    payload = payload[1 : len(payload) - payload[0]]
                self._block = payload[5:] if flags & _PRIORITY else payload
                self._last = flags & _END_STREAM
            else:
                self._block += payload
            if flags & _END_HEADERS:
                headers = self._decode(self._block)
                if stream == self._stream and headers.get(":status", "")[:1] != "1":
                    self._answers.append(headers)
                    self._done = bool(self._last)
        elif kind == _RST and stream == self._stream and not self._done:
            code = int.from_bytes(payload, "big")
            raise StreamTerminatedError(f"Stream reset by remote party, error_code: {code}")
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload) - 5, 6):
                name, value = payload[at + 1], int.from_bytes(payload[at + 2 : at + 6], "big")
                if name == _INITIAL_WINDOW_SIZE:
                    self._first_window = value
                elif name == _HEADER_TABLE_SIZE:
                    self._shrink = b"\x20"  # to nothing at all: we do not use it
            self._socket.sendall(http2.frame_head(0, _SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(http2.frame_head(len(payload), _PING, _ACK, 0) + payload)
        elif kind == _WINDOW and not stream:
            self._window += int.from_bytes(payload, "big")
        elif kind == _GOAWAY:
            self._leaving = True
            if int.from_bytes(payload[:4], "big") < self._stream and not self._done:
                raise StreamTerminatedError("the server takes no more calls")

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._unread -= len(payload)
        if self._unread < wire.WINDOW // 2:
            more = wire.WINDOW - self._unread
            self._unread = wire.WINDOW
            self._socket.sendall(_increment(0, more) + _increment(stream, more))
        if stream != self._stream:
            return
        self._done = bool(flags & _END_STREAM)
        self._body.append(payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload)
        self._size += len(payload)
        if self._size > wire.MAX_MESSAGE + 5:
            raise StreamTerminatedError(f"the reply is larger than the limit of {wire.MAX_MESSAGE} bytes")

    def _decode(self, block: bytes) -> dict[str, str]:
        """Headers of a block; equal blocks are equal headers while the table stays the same."""
        known = self._known.get(block)
        if known is None:
            table = self._decoder.header_table
            before = http2.state(table)
            try:
                known = {str(name): str(value) for name, value in self._decoder.decode(block)}
            except hpack.HPACKError as error:
                raise StreamTerminatedError(f"headers: {error}") from None
            if not http2.same(http2.state(table), before) or len(self._known) >= _KEPT:
                self._known.clear()
            else:
                self._known[block] = known
        return known


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Connections:
    """The connections of one client in one process that its threads take for their calls."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._headers: dict[tuple[object, ...], bytes] = {}
        self._idle: list[_Connection] = []  # appending and popping are atomic
        self._all: set[_Connection] = set()
        self.closed = False

    def close(self) -> None:
        """End the calls under way, as they would if the server had gone."""
        self.closed = True
        while self._idle:
            self._drop(self._idle.pop())
        for connection in list(self._all):
            connection.shut()

    def call(
        self, path: str, timeout: float | None, metadata: Mapping[str, str], data: bytes
    ) -> tuple[bool, bytes | None]:
        """Send one framed request and wait for its answer: (True, the encoded reply or None).

        (False, None) if nothing was sent, as too many threads are at it or the request is too large.

        :param timeout: seconds.
        :raises GRPCError, StreamTerminatedError, TimeoutError, OSError: as `calls.Call` does.
        """
        headers = self._block(path, timeout, metadata)
        deadline = None if timeout is None else time.monotonic() + timeout
        small = max(len(data), len(headers)) <= _LARGEST
        connection = self._take(len(data), deadline) if small else None
        if connection is None:
            return False, None
        usable = False
        try:
            reply = connection.call(headers, data, deadline)
            usable = True
            return True, reply
        except GRPCError:
            usable = True
            raise
        finally:
            if usable and not self.closed:
                self._idle.append(connection)
            else:
                self._drop(connection)

    def _take(self, size: int, deadline: float | None) -> _Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.ready(size):
                return connection
            self._drop(connection)
        if len(self._all) >= CONNECTIONS:
            return None
        timeout = calls.CONNECT_TIMEOUT if deadline is None else min(calls.CONNECT_TIMEOUT, _left(deadline))
        connection = _Connection(self._host, self._port, timeout)
        self._all.add(connection)
        return connection

    def _drop(self, connection: _Connection) -> None:
        self._all.discard(connection)
        connection.close()

    def __del__(self) -> None:
        for connection in self._all:  # not shut, as it may be that of a parent process
            connection.close()

    def _block(self, path: str, timeout: float | None, metadata: Mapping[str, str]) -> bytes:
        """The headers of a request, written out: no table of the server's has to keep them."""
        key = (path, timeout, *metadata.items())
        block = self._headers.get(key)
        if block is None:
            headers = calls.request_headers(path, "http", self._authority, timeout, metadata)
            block = b"".join(map(http2.literal, headers))
            if len(self._headers) >= _KEPT:
                self._headers.clear()
            self._headers[key] = block
        return block
