"""Many gRPC messages in one DATA write, and many messages out of one read.

grpclib moves one message per call: a coroutine, a header and an HTTP/2 frame each. A listing of a million files, or a
stream of ten thousand labels, is all overhead that way. A message on the wire is only five bytes of header (a flag and
a big-endian length) and its bytes, so a batch of them is one byte string. This module is where grpclib's inside is
touched: the `protocol.Stream` below its streams, and the HTTP/2 settings of a connection. Client and server use it.
"""

import asyncio
import socket
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as H2Stream
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

from pachd import http2

MAX_MESSAGE = 64 << 20  # bytes; Pachyderm's clients send up to 19 MiB, its servers accept 20
WINDOW = 32 << 20  # bytes in flight per stream and per connection
MAX_FRAME = 2 << 20  # bytes; larger frames mean fewer Python calls per megabyte
MAX_STREAMS = 10_000  # calls at once on one connection; a waiting one costs little
BATCH = 256 << 10  # bytes: what a batching sender collects before it writes
CORK = 64 << 10  # bytes that are held back until the event loop has run what is ready
LARGE = 64 << 10  # bytes of a message that is put together in one go when all of it is there

CONFIG = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)

M = TypeVar("M", bound=Message)
Buffer = bytes | memoryview


def frame(data: bytes) -> bytes:
    """Return one encoded message with its gRPC header before it."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def frames(messages: Iterable[Message]) -> bytes:
    """Return messages encoded, each with its gRPC header, as one byte string for one write."""
    parts: list[bytes] = []
    for message in messages:
        data = message.SerializeToString()
        parts.append(b"\0" + len(data).to_bytes(4, "big"))
        parts.append(data)
    return b"".join(parts)


class _Corked:
    """A transport that writes together what is written during one turn of the event loop: the headers, the message and
    the trailers of a small answer are one packet, and wake the peer once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[Buffer] = []
        self._size = 0

    def write(self, data: Buffer) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > CORK:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        parts, self._parts = self._parts, []
        self._size = 0
        if parts and not self._transport.is_closing():
            if len(parts) == 1:
                self._transport.write(parts[0])
            else:
                self._transport.writelines(parts)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def tune(protocol: H2Protocol) -> H2Protocol:
    """Make `protocol` use our connection, large frames and large windows when its connection is made."""

    def connection_made(transport: Any) -> None:
        # what H2Protocol.connection_made does, with our own connection and transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        h2 = http2.Connection(protocol.h2_config)
        h2.initiate_connection()
        h2.increment_flow_control_window(WINDOW - h2.local_settings.initial_window_size)
        h2.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            }
        )
        corked: Any = _Corked(transport, asyncio.get_running_loop())
        protocol.connection = Connection(h2, corked, config=protocol.config)
        protocol.connection.flush()
        protocol.connection.initialize()
        protocol.processor = EventsProcessor(protocol.handler, protocol.connection)

    protocol.connection_made = connection_made  # type: ignore[method-assign]
    return protocol


def corked(stream: H2Stream) -> _Corked:
    """Return the transport of a stream, for those who know that nothing more comes now: they may `flush` it."""
    transport: Any = stream._transport
    return transport  # type: ignore[no-any-return]


async def send(stream: H2Stream, parts: Sequence[Buffer], end: bool = False) -> None:
    """Write already framed messages, given in pieces that are sent as they are; waits while the peer's window is full.

    :param end: nothing is sent after this.
    """
    h2: Any = stream._h2_connection
    connection, transport = stream.connection, corked(stream)
    assert stream.id is not None
    left = sum(map(len, parts))
    while True:
        await connection.write_ready.wait()
        if stream.id not in h2.streams:
            raise StreamClosedError(stream.id)
        room = h2.local_flow_control_window(stream.id) if left else 0
        if left and room <= 0:
            stream.window_updated.clear()
            await stream.window_updated.wait()
            continue
        size = min(left, room, h2.max_outbound_frame_size)
        now = parts
        if size < left:
            now, parts = _cut(parts, size)
        left -= size
        head = h2.data_head(stream.id, size, end and not left)
        waiting = h2.data_to_send()
        transport.write(waiting + head if waiting else head)
        for part in now:
            transport.write(part)
        connection.data_send_process()
        if not left:
            if end:
                transport.flush()
            return


def answer(stream: H2Stream, headers: http2.Headers, body: bytes, trailers: http2.Headers) -> bool:
    """Send a whole answer at once, if that is possible; returns whether it was.

    :param body: framed messages.
    """
    h2: Any = stream._h2_connection
    connection, transport = stream.connection, corked(stream)
    if not connection.write_ready.is_set():
        return False
    data = h2.answer(stream.id, headers, body, trailers)
    if data:
        transport.write(data)
        transport.flush()
        connection.headers_send_process()
        connection.data_send_process()
    return bool(data)


def _cut(parts: Sequence[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    """Split pieces behind `size` bytes."""
    for i, part in enumerate(parts):
        if size < len(part):
            view = memoryview(part)
            return [*parts[:i], view[:size]], [view[size:], *parts[i + 1 :]]
        size -= len(part)
    return list(parts), []


class Receiver:
    """Reads the messages of one stream in batches: whatever has arrived, whole messages only.

    :param gunzip: accept messages that are compressed with gzip.
    """

    def __init__(self, stream: H2Stream, gunzip: bool = False) -> None:
        self._stream = stream
        self._gunzip = gunzip
        self._rest = b""  # the beginning of a message
        self._large: list[Buffer] = []  # the body of a large message as far as it is there: joined once
        self._missing = 0  # bytes of it that are still to come
        self._compressed = 0
        self._ended = False

    async def batch(self) -> list[bytes]:
        """Return the next encoded messages, at least one; an empty list means that the sender is done.

        :raises GRPCError: a message is larger than MAX_MESSAGE, is cut off, or is compressed in an unknown way.
        """
        while not self._ended:
            messages = await self._read()
            if messages:
                return messages
        if self._rest or self._missing:
            raise GRPCError(Status.INTERNAL, "the stream ended in the middle of a message")
        return []

    async def _read(self) -> list[bytes]:
        buffer = self._stream.buffer
        queue = buffer._unacked
        item = await queue.get()
        messages: list[bytes] = []
        acked = 0
        while True:
            if not item.ack_size:  # grpclib's mark for the end of the stream
                self._ended = True
                break
            self._take(item.data, messages)
            acked += item.ack_size
            if queue.empty() or acked > WINDOW // 4:
                break
            item = queue.get_nowait()
        if acked:
            buffer._ack_callback(acked)
        return messages

    def _take(self, data: bytes, messages: list[bytes]) -> None:
        """Split the next bytes of the stream into messages."""
        at = 0
        if self._missing:
            at = min(self._missing, len(data))
            self._large.append(memoryview(data)[:at] if at < len(data) else data)
            self._missing -= at
            if self._missing:
                return
            body = b"".join(self._large)
            self._large.clear()
            messages.append(self._inflate(body) if self._compressed else body)
        if self._rest:
            data = self._rest + data[at:]
            self._rest, at = b"", 0
        size = len(data)
        while size - at >= 5:
            length = int.from_bytes(data[at + 1 : at + 5], "big")
            if length > MAX_MESSAGE:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED,
                    f"message of {length} bytes is larger than the limit of {MAX_MESSAGE}",
                )
            end = at + 5 + length
            if end > size:
                if length < LARGE:
                    break
                self._large.append(memoryview(data)[at + 5 :])
                self._missing, self._compressed = end - size, data[at]
                return
            body = data[at + 5 : end]
            messages.append(self._inflate(body) if data[at] else body)
            at = end
        self._rest = data[at:]

    def _inflate(self, data: bytes) -> bytes:
        if not self._gunzip:
            raise GRPCError(Status.UNIMPLEMENTED, "this message is compressed in a way that is not supported")
        try:
            inflater = zlib.decompressobj(wbits=31)
            message = inflater.decompress(data, MAX_MESSAGE)
        except zlib.error as e:
            raise GRPCError(Status.INTERNAL, f"a compressed message is damaged: {e}") from None
        if inflater.unconsumed_tail:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"message is larger than the limit of {MAX_MESSAGE} bytes")
        return message


class Batcher(Generic[M]):
    """Collects messages to be sent until they are worth a write.

    `add` returns the framed bytes to send, or b"" while there is room; `take` returns what is left.
    """

    def __init__(self, limit: int = BATCH) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, message: M) -> bytes:
        data = message.SerializeToString()
        self._parts.append(b"\0" + len(data).to_bytes(4, "big"))
        self._parts.append(data)
        self._size += len(data) + 5
        return self.take() if self._size >= self._limit else b""

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data
