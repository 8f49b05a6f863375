"""A small gRPC server for unary calls of one client at a time, driven by the thread that serves it.

Code that works through a batch calls its worker once per datum.  Each of the libraries that could serve the call
costs more than everything else that is done for a small datum: they parse HTTP/2 event by event, and hand the call
from thread to thread.  So the frames of RFC 9113 are read here; the headers are decoded by hpack.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from typing import NamedTuple

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_FRAME = 16384  # bytes; the largest frame that either side may send
_RECEIVE = 1 << 20  # bytes of requests under way that a client may send
_LARGEST = 4 << 20  # bytes of one request
_FIRST_WINDOW = 65535
_SEND = 30.0  # seconds; a client that reads nothing for so long is gone
_CONTENT_TYPE = b"\x0f\x10\x10application/grpc"  # a literal without indexing; the name is entry 31 of the static table
_HEADERS_OK = b"\x88" + _CONTENT_TYPE  # entry 8 of the static table: `:status: 200`
OK, CANCELLED, UNKNOWN, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED = 0, 1, 2, 8, 9, 12


class Broken(Exception):
    """The client does not speak HTTP/2, or is gone."""


class Call(NamedTuple):
    """A request that came whole."""

    connection: Connection
    stream: int
    path: str
    body: bytes

    def answer(self, message: bytes) -> None:
        """Send the reply. Nothing happens when the client is gone."""
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self.connection.reply(self.stream, body, _ALL_WELL)

    def fail(self, status: int, words: str) -> None:
        """Send an error instead."""
        self.connection.reply(self.stream, None, _HEADERS_OK + _trailers(status, words))


def _integer(value: int, bits: int) -> bytes:
    """HPACK's integer in the low `bits` of a byte whose other bits are 0."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((value,))
    out = bytearray((limit,))
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def _trailers(status: int, words: str) -> bytes:
    found = _literal(b"grpc-status", str(status).encode())
    if words:
        quoted = "".join(
            chr(byte) if 32 <= byte < 127 and byte != 37 else f"%{byte:02X}" for byte in words.encode()[:4096]
        )
        found += _literal(b"grpc-message", quoted.encode())
    return found


_ALL_WELL = _trailers(OK, "")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


class Connection:
    """One client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_SEND)
        self._buffer = b""
        self._begun = False
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, str] = {}  # header blocks whose meaning cannot have changed: the path
        self._streams: dict[int, tuple[str, bytearray]] = {}
        self._block: tuple[int, int, bytearray] | None = None  # headers to be continued: stream, flags, block
        self._window, self._first = _FIRST_WINDOW, _FIRST_WINDOW
        self._windows: dict[int, int] = {}  # of open streams, where they differ from the first
        self._taken = 0
        self.later: list[Call] = []  # came while a long reply was sent
        self.gone = False
        settings = _frame(_SETTINGS, 0, 0, struct.pack(">HIHI", 3, 16, 4, _RECEIVE))
        self._send(settings + _frame(_WINDOW, 0, 0, (_RECEIVE - _FIRST_WINDOW).to_bytes(4, "big")))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self.gone = True
        self._sock.close()

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError:
            self.gone = True

    def receive(self) -> list[Call]:
        """Read what there is; the calls that are complete with it. Raises Broken at the end of the connection."""
        try:
            data = self._sock.recv(64 << 10)
        except OSError as error:
            raise Broken(str(error)) from None
        if not data:
            raise Broken("the connection was closed")
        data = self._buffer + data if self._buffer else data
        at, end = 0, len(data)
        if not self._begun:
            if end < len(_PREFACE):
                if not _PREFACE.startswith(data):
                    raise Broken("not HTTP/2")
                self._buffer = data
                return []
            if not data.startswith(_PREFACE):
                raise Broken("not HTTP/2")
            self._begun, at = True, len(_PREFACE)
        calls: list[Call] = []
        while end - at >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, at)
            size = high << 8 | low
            if size > _FRAME:
                raise Broken("a frame is too large")
            if end - at - 9 < size:
                break
            call = self._take(kind, flags, stream & 0x7FFFFFFF, data[at + 9 : at + 9 + size])
            if call is not None:
                calls.append(call)
            at += 9 + size
        self._buffer = data[at:]
        return calls

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> Call | None:
        if self._block is not None and kind != _CONTINUATION:
            raise Broken("headers were not continued")
        if kind == _HEADERS:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & _PRIORITY:
                payload = payload[5:]
            if flags & _END_HEADERS:
                return self._headers(stream, flags, payload)
            self._block = stream, flags, bytearray(payload)
        elif kind == _CONTINUATION:
            if self._block is None or self._block[0] != stream or len(self._block[2]) > 1 << 20:
                raise Broken("unexpected continuation")
            self._block[2].extend(payload)
            if flags & _END_HEADERS:
                _, first, block = self._block
                self._block = None
                return self._headers(stream, first, bytes(block))
        elif kind == _DATA:
            return self._data(stream, flags, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload) - 5, 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == 4:
                    self._windows = {s: w + value - self._first for s, w in self._windows.items()}
                    self._first = value
            self._send(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._send(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW and len(payload) == 4:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if not stream:
                self._window += more
            elif stream in self._streams or stream in self._windows:
                self._windows[stream] = self._windows.get(stream, self._first) + more
        elif kind == _RST:
            self._streams.pop(stream, None)
            self._windows.pop(stream, None)
        return None

    def _headers(self, stream: int, flags: int, block: bytes) -> Call | None:
        path = self._known.get(block)
        if path is None:
            table = self._decoder.header_table.dynamic_entries
            size, newest = len(table), table[0] if table else None
            try:
                path = dict(self._decoder.decode(block, raw=True)).get(b":path", b"").decode()
            except (hpack.HPACKError, UnicodeDecodeError) as error:
                raise Broken(f"headers: {error}") from None
            if size != len(table) or (table and table[0] is not newest) or block[0] & 0xE0 == 0x20:
                self._known = {}  # the block changed what later ones mean
            elif len(self._known) < 64:
                self._known[block] = path
        if stream in self._streams:  # trailers of a request
            path = self._streams[stream][0]
        else:
            self._streams[stream] = path, bytearray()
        return self._complete(stream) if flags & _END_STREAM else None

    def _data(self, stream: int, flags: int, payload: bytes) -> Call | None:
        self._taken += len(payload)
        if self._taken > _RECEIVE // 2:
            self._send(_frame(_WINDOW, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0
        found = self._streams.get(stream)
        if found is None:
            return None
        if payload:
            body = found[1]
            body += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if len(body) > _LARGEST:
                self.reply(stream, None, _HEADERS_OK + _trailers(RESOURCE_EXHAUSTED, "the request is too large"))
                return None
            if not flags & _END_STREAM and len(body) > _RECEIVE // 2:
                self._send(_frame(_WINDOW, 0, stream, len(payload).to_bytes(4, "big")))
        return self._complete(stream) if flags & _END_STREAM else None

    def _complete(self, stream: int) -> Call | None:
        path, body = self._streams[stream]
        if len(body) < 5 or body[0] or len(body) != 5 + int.from_bytes(body[1:5], "big"):
            words = "one uncompressed message was expected"
            self.reply(stream, None, _HEADERS_OK + _trailers(UNIMPLEMENTED, words))
            return None
        return Call(self, stream, path, bytes(body[5:]))

    def waits_for(self, stream: int) -> bool:
        """Whether the client still wants the answer."""
        return not self.gone and stream in self._streams

    def reply(self, stream: int, body: bytes | None, trailers: bytes) -> None:
        """Headers and a body, and the trailers that end the stream; without a body only these."""
        if not self.waits_for(stream):
            return
        end = _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, trailers)
        if body is None:
            self._send(end)
        else:
            first = _frame(_HEADERS, _END_HEADERS, stream, _HEADERS_OK)
            size = len(body)
            if size <= _FRAME and size <= self._window and size <= self._windows.get(stream, self._first):
                self._window -= size
                self._send(first + _frame(_DATA, 0, stream, body) + end)
            else:
                self._send(first)
                self._send_slowly(stream, body)
                self._send(end)
        self._streams.pop(stream, None)
        self._windows.pop(stream, None)

    def _send_slowly(self, stream: int, body: bytes) -> None:
        """Send as much at a time as the client's windows allow."""
        self._windows.setdefault(stream, self._first)
        while body and self.waits_for(stream):
            size = min(len(body), _FRAME, self._window, self._windows[stream])
            if size > 0:
                self._send(_frame(_DATA, 0, stream, body[:size]))
                self._window -= size
                self._windows[stream] -= size
                body = body[size:]
                continue
            try:
                self.later += self.receive()
            except Broken:
                self.gone = True


class Listener:
    """A port on loopback and the calls that come to it.

    Only `wake` may be called from other threads.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._alarm, select.POLLIN)
        self._connections: dict[int, Connection] = {}
        self._calls: deque[Call] = deque()
        self._closed = False
        self._closing = threading.Lock()

    def next(self, timeout: float | None) -> Call | None:
        """The next call, None after `wake`. Raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._calls:
                call = self._calls.popleft()
                if call.connection.waits_for(call.stream):
                    return call
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._poll.poll(None if left is None else left * 1000)
            if not ready and left is not None and left <= 0:
                raise TimeoutError
            for fd, _events in ready:
                if fd == self._alarm:
                    os.eventfd_read(fd)
                    return None
                self._serve(fd)

    def _serve(self, fd: int) -> None:
        connection = self._connections.get(fd)
        if connection is None:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            connection = Connection(sock)
            self._connections[sock.fileno()] = connection
            self._poll.register(sock, select.POLLIN)
            return
        try:
            found = connection.receive()
            self._calls.extend(connection.later)
            connection.later = []
            self._calls.extend(found)
        except (Broken, IndexError, ValueError, struct.error):  # the latter: frames shorter than they say
            connection.gone = True
        if connection.gone:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._connections.pop(fd).close()

    def wake(self) -> None:
        """Have `next` return None, now or when it is called the next time."""
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._alarm, 1)

    def disconnect(self) -> None:
        """Drop all clients and their calls."""
        for fd in list(self._connections):
            self._drop(fd)
        self._calls.clear()

    def close(self) -> None:
        """End the service."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            os.close(self._alarm)
        self.disconnect()
        self._socket.close()
