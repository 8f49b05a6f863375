"""Many gRPC messages in one DATA write, and many messages out of one read.

grpclib moves one message per call: a coroutine, a header and an HTTP/2 frame each. A listing of a million files, or a
stream of ten thousand labels, is all overhead that way. A message on the wire is only five bytes of header (a flag and
a big-endian length) and its bytes, so a batch of them is one byte string. This module is where grpclib's inside is
touched: the `protocol.Stream` below its streams, and the HTTP/2 settings of a connection. Client and server use it.
"""

import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.protocol import Stream as H2Stream
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

MAX_MESSAGE = 64 << 20  # bytes; Pachyderm's clients send up to 19 MiB, its servers accept 20
WINDOW = 32 << 20  # bytes in flight per stream and per connection
MAX_FRAME = 1 << 20  # bytes; larger frames mean fewer Python calls per megabyte
MAX_STREAMS = 10_000  # calls at once on one connection; a waiting one costs little
BATCH = 256 << 10  # bytes: what a batching sender collects before it writes

CONFIG = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)

M = TypeVar("M", bound=Message)


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


def _short(frame: DataFrame) -> str:
    return f"<{len(frame.data)} bytes>"


# h2 makes the text of every frame it receives for a trace that nobody reads. For DATA it would be the hex digits of
# all bytes, which costs as much as everything else about receiving them.
DataFrame._body_repr = _short  # type: ignore[assignment]


def tune(protocol: H2Protocol) -> H2Protocol:
    """Make `protocol` announce large frames when its connection is made."""
    made = protocol.connection_made

    def connection_made(transport: Any) -> None:
        made(transport)
        h2 = protocol.connection._connection
        h2.update_settings(
            {SettingCodes.MAX_FRAME_SIZE: MAX_FRAME, SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS}
        )
        protocol.connection.flush()

    protocol.connection_made = connection_made  # type: ignore[method-assign]
    return protocol


async def send(stream: H2Stream, data: bytes, end: bool = False) -> None:
    """Write already framed messages; waits while the peer's window is full."""
    await stream.send_data(data, end_stream=end)


class Receiver:
    """Reads the messages of one stream in batches: whatever has arrived, whole messages only.

    :param gunzip: accept messages that are compressed with gzip.
    """

    def __init__(self, stream: H2Stream, gunzip: bool = False) -> None:
        self._stream = stream
        self._gunzip = gunzip
        self._tail = bytearray()
        self._ended = False

    async def batch(self) -> list[bytes]:
        """Return the next encoded messages, at least one; an empty list means that the sender is done.

        :raises GRPCError: a message is larger than MAX_MESSAGE, is cut off, or is compressed in an unknown way.
        """
        while not self._ended:
            await self._read()
            messages = self._split()
            if messages:
                return messages
        if self._tail:
            raise GRPCError(Status.INTERNAL, "the stream ended in the middle of a message")
        return []

    async def _read(self) -> None:
        buffer = self._stream.buffer
        queue = buffer._unacked
        item = await queue.get()
        acked = 0
        while True:
            if not item.ack_size:  # grpclib's mark for the end of the stream
                self._ended = True
                break
            self._tail += item.data
            acked += item.ack_size
            if queue.empty() or acked > WINDOW // 4:
                break
            item = queue.get_nowait()
        if acked:
            buffer._ack_callback(acked)

    def _split(self) -> list[bytes]:
        tail = self._tail
        size, at = len(tail), 0
        if size < 5:
            return []
        messages: list[bytes] = []
        with memoryview(tail) as view:
            while size - at >= 5:
                length = int.from_bytes(view[at + 1 : at + 5], "big")
                if length > MAX_MESSAGE:
                    raise GRPCError(
                        Status.RESOURCE_EXHAUSTED,
                        f"message of {length} bytes is larger than the limit of {MAX_MESSAGE}",
                    )
                end = at + 5 + length
                if end > size:
                    break
                data = bytes(view[at + 5 : end])
                messages.append(self._inflate(data) if view[at] else data)
                at = end
        if at:
            del tail[:at]
        return messages

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


def tuned(factory: Callable[[], H2Protocol]) -> Callable[[], H2Protocol]:
    """Wrap a protocol factory of grpclib so that its connections are tuned."""
    return partial(_tuned, factory)


def _tuned(factory: Callable[[], H2Protocol]) -> H2Protocol:
    return tune(factory())
