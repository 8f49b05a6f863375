"""Unary gRPC calls to a server on this machine, one after the other, from the thread that makes them.

Code that works through a batch calls its worker once per datum. grpcio spends a quarter of a millisecond of CPU time on
such a call, more than small datums need for all the rest: it hands it from thread to thread. So the frames of RFC 9113
are written and read here; headers are decoded by hpack.
"""

import socket
import struct
from urllib.parse import unquote

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_FRAME = 16384  # bytes; the largest frame that either side may send
_MOST = (1 << 31) - 1  # bytes; the largest window there is
_FIRST_WINDOW = 65535


class CallError(OSError):
    """The call failed: str() is what the server says, or what is wrong with the connection."""


class Caller:
    """A connection to a port of this machine. `close` it, or use it in a `with`. Raises CallError, as `call` does."""

    def __init__(self, port: int) -> None:
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, dict[bytes, bytes]] = {}  # header blocks whose meaning cannot have changed
        self._heads: dict[str, bytes] = {}
        self._authority = f"127.0.0.1:{port}".encode()
        self._window = self._first = self._left = _FIRST_WINDOW  # may be sent: in all, on a new stream, on this one
        self._stream = -1
        self._taken = 0
        try:
            self._sock = socket.create_connection(("127.0.0.1", port))
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # no push, no table of headers that blocks refer to, replies as large as they come
            settings = struct.pack(">HIHIHI", 2, 0, 1, 0, 4, _MOST)
            more = (_MOST - _FIRST_WINDOW).to_bytes(4, "big")
            self._sock.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, more))
        except OSError as error:
            raise CallError(f"no connection to port {port}: {error.strerror or error}") from None

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def call(self, path: str, body: bytes) -> bytes:
        """Call a method, `/<service>/<method>`, and wait for its reply, however long it takes.

        After a CallError the connection is of no use any more, unless it was the server that said it.
        """
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = b"\x83\x86" + b"".join(
                _literal(n, v) for n, v in ((b":path", path.encode()), *self._always())
            )  # 0x83, 0x86: `:method: POST`, `:scheme: http`
        self._stream += 2
        self._left, self._reply, self._block = self._first, bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        message = b"\0" + len(body).to_bytes(4, "big") + body
        try:
            self._send(_frame(_HEADERS, _END_HEADERS, self._stream, head), message)
            while not self._ended:
                self._take(*self._next())
        except CallError:
            raise
        except (OSError, hpack.HPACKError, struct.error, IndexError) as error:
            raise CallError(f"the connection broke: {error}") from None
        return self._answer()

    def _always(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b":authority", self._authority), (b"te", b"trailers"), (b"content-type", b"application/grpc"))

    def _answer(self) -> bytes:
        status = self._headers.get(b"grpc-status", b"")
        if status != b"0":
            said = unquote(self._headers.get(b"grpc-message", b"").decode(errors="replace"))
            http = self._headers.get(b":status", b"?").decode(errors="replace")
            raise CallError(said or (f"status {status.decode()}" if status else f"no gRPC reply, HTTP status {http}"))
        reply = self._reply
        if len(reply) < 5 or reply[0] or len(reply) != 5 + int.from_bytes(reply[1:5], "big"):
            raise CallError("the reply is not one uncompressed message")
        return bytes(reply[5:])

    def _send(self, head: bytes, message: bytes) -> None:
        """Send a request, as much of it at a time as the server's windows allow."""
        while not self._ended:
            size = max(0, min(len(message), _FRAME, self._window, self._left))
            part, message = message[:size], message[size:]
            if part:
                self._window -= size
                self._left -= size
                head += _frame(_DATA, 0 if message else _END_STREAM, self._stream, part)
            if head:
                self._sock.sendall(head)
                head = b""
            if not message:
                return
            if not part:
                self._take(*self._next())

    def _next(self) -> tuple[int, int, int, bytes]:
        """Wait for a frame: kind, flags, stream, payload."""
        buffer = self._buffer
        while True:
            if len(buffer) >= 9:
                high, low, kind, flags, stream = struct.unpack_from(">HBBBI", buffer)
                size = high << 8 | low
                if size > _FRAME:
                    raise CallError("the server sent a frame that is too large")
                if len(buffer) >= 9 + size:
                    payload = bytes(buffer[9 : 9 + size])
                    del buffer[: 9 + size]
                    return kind, flags, stream & _MOST, payload
            data = self._sock.recv(64 << 10)
            if not data:
                raise CallError("the server closed the connection")
            buffer += data

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        mine = stream == self._stream
        if kind == _DATA:
            self._taken += len(payload)
            if self._taken > _MOST // 2:
                self._sock.sendall(_frame(_WINDOW, 0, 0, self._taken.to_bytes(4, "big")))
                self._taken = 0
            if mine:
                self._reply += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
                self._ended = bool(flags & _END_STREAM)
        elif kind in (_HEADERS, _CONTINUATION):
            if kind == _HEADERS:
                self._last = mine and bool(flags & _END_STREAM)
                if flags & _PADDED:
                    payload = payload[1 : len(payload) - payload[0]]
                if flags & _PRIORITY:
                    payload = payload[5:]
            self._block += payload
            if flags & _END_HEADERS:
                found, self._block = self._decoded(bytes(self._block)), bytearray()
                if mine:
                    self._headers.update(found)
                    self._ended = self._last
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload) - 5, 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == 4:
                    self._left += value - self._first
                    self._first = value
            self._sock.sendall(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._sock.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW:
            if not stream:
                self._window += int.from_bytes(payload, "big")
            elif mine:
                self._left += int.from_bytes(payload, "big")
        elif kind == _RST and mine:
            raise CallError(f"the server broke the call off (HTTP/2 error {int.from_bytes(payload, 'big')})")
        elif kind == _GOAWAY and int.from_bytes(payload[:4], "big") & _MOST < self._stream:
            raise CallError("the server ends the connection")

    def _decoded(self, block: bytes) -> dict[bytes, bytes]:
        found = self._known.get(block)
        if found is None:
            table = self._decoder.header_table.dynamic_entries
            size, newest = len(table), table[0] if table else None
            found = dict(self._decoder.decode(block, raw=True))
            if size != len(table) or (table and table[0] is not newest) or block[:1] >= b"\x20" and block[0] < 0x40:
                self._known = {}  # the block changed what later ones mean
            elif len(self._known) < 64:
                self._known[block] = found
        return found


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that nothing is to remember; both parts are shorter than 127 bytes."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
