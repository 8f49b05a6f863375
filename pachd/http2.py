"""HTTP/2 connections that do the frequent things without detours.

h2 is complete and careful, and makes several objects, log lines and copies of every frame: for a call with a small
message that is most of the work, and for a large file it is six copies of each byte. This connection is h2's, with
short cuts for DATA and HEADERS in both directions; the rules (states of streams, windows, lengths) are asked of h2's
own objects, and any other frame goes through h2. h2's inside is touched in this module only.
"""

from collections.abc import Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection, _decode_headers
from h2.events import DataReceived, Event, TrailersReceived
from h2.exceptions import FrameTooLargeError, ProtocolError, TooManyStreamsError
from h2.stream import H2Stream, StreamInputs, StreamState
from hpack.hpack import encode_integer
from hpack.table import HeaderTable
from hyperframe.frame import WindowUpdateFrame

_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_HEAD = 9  # bytes before the body of a frame
_CONNECTED = (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
_RECEIVING = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)
_ANSWER = (
    StreamInputs.SEND_HEADERS,
    StreamInputs.SEND_DATA,
    StreamInputs.SEND_HEADERS,
    StreamInputs.SEND_END_STREAM,
)
_FEW = 64  # streams that are not counted, and whose closed ones are not cleared away, for each new one
_KEPT_BLOCKS = 256
_KEPT_SIZE = 1024  # bytes of a header block that is worth remembering
# Headers that differ from call to call: kept out of the compression table, where they would push out the others.
_VARYING = frozenset({"grpc-timeout", "grpc-message"})

Headers = Sequence[tuple[str, str]]


class Connection(H2Connection):
    """An HTTP/2 connection for `grpclib`; see `h2.connection.H2Connection`.

    DATA is handed on as it arrives: a large frame becomes several `DataReceived` events, an empty one none.
    """

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._rest = bytearray()  # the beginning of a frame
        self._need = _HEAD  # bytes of it before it can be looked at again
        self._stream: H2Stream | None = None  # whose DATA frame is coming in
        self._left = 0  # bytes of that frame that are still to come
        self._ends = False  # it is the last of its stream
        self._decoded: dict[bytes, tuple[list[Any], list[Any]]] = {}
        self._encoded: dict[tuple[tuple[str, str], ...], bytes] = {}

    def _input(self, input_: ConnectionInputs) -> None:
        """Tell the connection's state of a frame of a stream; on an open connection it changes nothing."""
        if self.state_machine.state not in _CONNECTED:
            self.state_machine.process_input(input_)

    # -- receiving -------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:  # type: ignore[override]
        """Take what has arrived; returns what it means.

        :raises ProtocolError: the peer breaks the rules; the connection has to be closed.
        """
        buffer = self.incoming_buffer
        if buffer._preamble_len:  # alone: h2 would measure what is behind it by the settings before
            length = buffer._preamble_len
            super().receive_data(data[:length])
            data = data[length:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        events: list[Event] = []
        try:
            at = self._frames(data, events)
        except ProtocolError as e:
            if self.state_machine.state is not ConnectionState.CLOSED:
                self._terminate_connection(e.error_code)
            raise
        if at < len(data):
            self._rest += memoryview(data)[at:]
        return events

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Handle whole frames, and DATA as far as it is there; returns where the rest begins."""
        at, size = 0, len(data)
        while True:
            if self._left:
                if at == size:
                    break
                piece = data[at : at + self._left] if at or size > self._left else data
                at += len(piece)
                self._left -= len(piece)
                self._data_piece(piece, events)
                continue
            if size - at < _HEAD:
                self._need = _HEAD
                break
            length = int.from_bytes(data[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            stream_id = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
            if length > self.max_inbound_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes is longer than {self.max_inbound_frame_size}")
            plain = not self.incoming_buffer._headers_buffer
            if kind == _DATA and plain and not flags & _PADDED and self._begin_data(stream_id, length, flags, events):
                at += _HEAD
                continue
            end = at + _HEAD + length
            if end > size:
                self._need = end - at
                break
            simple = flags & (_END_HEADERS | _PADDED | _PRIORITY) == _END_HEADERS
            if kind == _HEADERS and plain and simple and self._may_have_headers(stream_id):
                self._receive_headers(stream_id, data[at + _HEAD : end], bool(flags & _END_STREAM), events)
            else:
                events += super().receive_data(data[at:end])
            at = end
        return at

    def _begin_data(self, stream_id: int, length: int, flags: int, events: list[Event]) -> bool:
        """Begin a DATA frame; False if h2 has to say what is wrong with it."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return False
        machine = stream.state_machine
        if machine.state not in _RECEIVING or not machine.headers_received:
            return False
        self._input(ConnectionInputs.RECV_DATA)
        self._stream, self._left, self._ends = stream, length, bool(flags & _END_STREAM)
        if not length:
            self._data_piece(b"", events)
        return True

    def _data_piece(self, piece: bytes, events: list[Event]) -> None:
        stream, size = self._stream, len(piece)
        assert stream is not None
        window = self._inbound_flow_control_window_manager
        window.window_consumed(size)
        machine = stream.state_machine
        if machine.state not in _RECEIVING:  # it was reset by us while the frame came in
            increment = window.process_bytes(size)
            if increment:
                frame = WindowUpdateFrame(0)
                frame.window_increment = increment
                self._prepare_for_sending([frame])
            return
        ended = self._ends and not self._left
        stream._inbound_window_manager.window_consumed(size)
        stream._track_content_length(size, ended)
        if size:
            events.append(DataReceived(stream_id=stream.stream_id, data=piece, flow_controlled_length=size))
        if ended:
            events += machine.process_input(StreamInputs.RECV_END_STREAM)

    def _may_have_headers(self, stream_id: int) -> bool:
        """Whether headers are in order here: of an open stream, or, at a server, of a new one."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream.state_machine.state in _RECEIVING
        return not self.config.client_side and stream_id % 2 == 1 and stream_id > self.highest_inbound_stream_id

    def _receive_headers(self, stream_id: int, block: bytes, ended: bool, events: list[Event]) -> None:
        if stream_id not in self.streams:
            limit = self.local_settings.max_concurrent_streams
            if len(self.streams) >= min(limit, _FEW) and self.open_inbound_streams >= limit:
                raise TooManyStreamsError(f"more than {limit} streams at once")
        raw, text = self._decode(block)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self._get_or_create_stream(stream_id, AllowedStreamIDs(not self.config.client_side))
        if raw:
            _, found = stream.receive_headers(raw, ended, None)
        else:
            found = stream.state_machine.process_input(StreamInputs.RECV_HEADERS)
            if ended:
                found = found + stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
            elif isinstance(found[0], TrailersReceived):
                raise ProtocolError("trailers end a stream")
        found[0].headers = text  # type: ignore[attr-defined]
        events += found

    def _decode(self, block: bytes) -> tuple[list[Any], list[Any]]:
        """Return the headers as bytes if h2 has to look into them, and as text.

        Equal blocks are equal headers while the table stays the same.
        """
        known = self._decoded.get(block)
        if known is not None:
            return known
        before = state(self.decoder.header_table)
        raw = list(_decode_headers(self.decoder, block))
        try:
            text = [(name.decode("ascii"), value.decode("ascii")) for name, value in raw]
        except UnicodeDecodeError:
            raise ProtocolError("a header is not ASCII") from None
        if not any(name == b"content-length" or (name == b":status" and value[:1] == b"1") for name, value in raw):
            raw = []
        if not same(state(self.decoder.header_table), before):
            self._decoded.clear()
        elif len(block) <= _KEPT_SIZE:
            if len(self._decoded) >= _KEPT_BLOCKS:
                self._decoded.clear()
            self._decoded[block] = (raw, text)
        return raw, text

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Take note that bytes were read; the peer is told when half a window has come together."""
        whole = self._inbound_flow_control_window_manager
        stream = self.streams.get(stream_id)
        parts = [whole] if stream is None else [whole, stream._inbound_window_manager]
        if all(
            part.current_window_size and part._bytes_processed + acknowledged_size < part.max_window_size // 2
            for part in parts
        ):
            for part in parts:
                part._bytes_processed += acknowledged_size
        else:
            super().acknowledge_received_data(acknowledged_size, stream_id)

    # -- sending ---------------------------------------------------------------------------------------------------

    def send_headers(  # type: ignore[override]
        self, stream_id: int, headers: Headers, end_stream: bool = False
    ) -> None:
        """Send the headers of a request or answer, or trailers; errors are h2's."""
        client = self.config.client_side
        if stream_id not in self.streams and client:
            limit = self.remote_settings.max_concurrent_streams
            if len(self.streams) >= min(limit, _FEW) and self.open_outbound_streams >= limit:
                raise TooManyStreamsError(f"more than {limit} streams at once")
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        machine = self._get_or_create_stream(stream_id, AllowedStreamIDs(client)).state_machine
        machine.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        elif machine.trailers_sent:
            raise ProtocolError("trailers end a stream")
        block = self._encode(headers)
        limit = self.max_outbound_frame_size
        kind, flags = _HEADERS, _END_STREAM if end_stream else 0
        for at in range(0, len(block), limit):
            part = block[at : at + limit]
            last = _END_HEADERS if at + limit >= len(block) else 0
            self._data_to_send += frame_head(len(part), kind, flags | last, stream_id) + part
            kind, flags = _CONTINUATION, 0

    def _encode(self, headers: Headers) -> bytes:
        """Return headers as a block; those that vary are written out behind the others."""
        varying = b""
        fixed = []
        for name, value in headers:
            if name in _VARYING:
                varying += literal((name, value))
            else:
                fixed.append((name, value))
        table = self.encoder.header_table
        if table.resized:
            self._encoded.clear()
        key = tuple(fixed)
        block = self._encoded.get(key)
        if block is None:
            before = state(table)
            resized = table.resized
            block = self.encoder.encode(fixed)
            if resized or not same(state(table), before):
                self._encoded.clear()
            elif len(block) <= _KEPT_SIZE:
                if len(self._encoded) >= _KEPT_BLOCKS:
                    self._encoded.clear()
                self._encoded[key] = block
        return block + varying

    def answer(self, stream_id: int, headers: Headers, body: bytes, trailers: Headers) -> bytes:
        """Return a whole answer, behind what else is to be sent; b"" if it does not go in one piece.

        A server's, on a stream on which it has sent nothing.
        """
        stream = self.streams.get(stream_id)
        size = len(body)
        if stream is None or size > min(self.max_outbound_frame_size, self.local_flow_control_window(stream_id)):
            return b""
        blocks = self._encode(headers), self._encode(trailers)
        if max(map(len, blocks)) > self.max_outbound_frame_size:
            return b""
        self._input(ConnectionInputs.SEND_HEADERS)
        for input_ in _ANSWER:
            stream.state_machine.process_input(input_)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        return b"".join(
            (
                self.data_to_send(),
                frame_head(len(blocks[0]), _HEADERS, _END_HEADERS, stream_id),
                blocks[0],
                frame_head(size, _DATA, 0, stream_id),
                body,
                frame_head(len(blocks[1]), _HEADERS, _END_HEADERS | _END_STREAM, stream_id),
                blocks[1],
            )
        )

    def data_head(self, stream_id: int, size: int, end: bool) -> bytes:
        """Account for a DATA frame of `size` bytes and return its head; the caller sends the body behind it.

        The caller has asked for `local_flow_control_window` and `max_outbound_frame_size`, and has sent what
        `data_to_send` had.
        """
        stream = self.streams[stream_id]
        self._input(ConnectionInputs.SEND_DATA)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if end:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        return frame_head(size, _DATA, _END_STREAM if end else 0, stream_id)

    def data_to_send(self, amount: int | None = None) -> bytes:
        """Return what is to be sent, and forget it."""
        if amount is None and not self._data_to_send:
            return b""
        return super().data_to_send(amount)


def frame_head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return the nine bytes before the body of a frame."""
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")


def literal(header: tuple[str, str]) -> bytes:
    """Return a header written out, for a block that leaves the compression table alone."""
    name, value = header
    return b"\0" + _string(name.encode()) + _string(value.encode())


def _string(value: bytes) -> bytes:
    return bytes(encode_integer(len(value), 7)) + value


State = tuple[int, int, object]


def state(table: HeaderTable) -> State:
    """What shows that a compression table has changed: a new entry is a new object at the front."""
    entries = table.dynamic_entries
    return table.maxsize, len(entries), entries[0] if entries else None


def same(a: State, b: State) -> bool:
    """Whether a table has not changed between two looks."""
    return a[0] == b[0] and a[1] == b[1] and a[2] is b[2]
