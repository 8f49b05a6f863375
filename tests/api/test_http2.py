"""Our HTTP/2 connection against h2's own: the same bytes mean the same, the same calls are understood the same."""

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded
from h2.exceptions import FlowControlError, ProtocolError
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from pachd.http2 import Connection

SETTINGS = {SettingCodes.MAX_FRAME_SIZE: 1 << 20, SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24}


def config(client: bool) -> H2Configuration:
    return H2Configuration(
        client_side=client,
        header_encoding="ascii",
        validate_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_inbound_headers=False,
        normalize_outbound_headers=False,
    )


def pair(client: type[H2Connection], *servers: type[H2Connection]) -> list[H2Connection]:
    """A client and servers that all get its bytes; the settings are exchanged."""
    made = [client(config(True)), *(server(config(False)) for server in servers)]
    for connection in made:
        connection.initiate_connection()
        connection.update_settings(SETTINGS)
        connection.increment_flow_control_window(1 << 24)
    for _ in range(3):
        deliver(made, [])
    return made


def deliver(connections: list[H2Connection], cuts: list[int]) -> list[list[Event]]:
    """Hand what the client has to all servers in pieces, and what the first server has to the client."""
    client, *servers = connections
    data = client.data_to_send()
    found: list[list[Event]] = [[] for _ in servers]
    for server, events in zip(servers, found, strict=True):
        at = 0
        for cut in [*cuts, len(data)]:
            events += server.receive_data(data[at : at + cut])
            at += cut
            if at >= len(data):
                break
        else:
            events += server.receive_data(data[at:])
    answers = [server.data_to_send() for server in servers]
    if answers[0]:
        client.receive_data(answers[0])
    return found


def meaning(events: list[Event]) -> list[Any]:
    """Events without what may differ: how DATA is cut, and what an event says of its neighbours."""
    told: list[Any] = []
    for event in events:
        if isinstance(event, DataReceived):
            if not event.flow_controlled_length:
                continue
            if told and told[-1][0] == "data" and told[-1][1] == event.stream_id:
                told[-1][2] += bytes(event.data)
                told[-1][3] += event.flow_controlled_length
            else:
                told.append(["data", event.stream_id, bytes(event.data), event.flow_controlled_length])
        elif hasattr(event, "headers"):
            told.append([type(event).__name__, event.stream_id, [(str(n), str(v)) for n, v in event.headers]])
        else:
            told.append([type(event).__name__, getattr(event, "stream_id", None)])
    return told


def request(path: str, timeout: str = "") -> list[tuple[str, str]]:
    more = [("grpc-timeout", timeout)] if timeout else []
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        *more,
        ("te", "trailers"),
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(["/a", "/b", "/c" * 40]), st.sampled_from(["", "1S", "29999m"])),
        st.tuples(st.just("data"), st.integers(0, 5), st.sampled_from([0, 1, 9, 300, 70_000])),
        st.tuples(st.just("end"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("reset"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("deliver"), st.lists(st.integers(1, 5000), max_size=8), st.just(0)),
    ),
    max_size=25,
)


def send(client: H2Connection, stream: int, body: bytes, end: bool) -> None:
    if isinstance(client, Connection):
        client._data_to_send += client.data_head(stream, len(body), end) + body
    else:
        client.send_data(stream, body, end_stream=end)


def walk(client: type[H2Connection], servers: list[type[H2Connection]], steps: list[Any]) -> None:
    """The same steps of a client mean the same to all servers."""
    connections = pair(client, *servers)
    sender = connections[0]
    open_streams: list[int] = []
    told: list[list[Event]] = [[] for _ in servers]
    for kind, what, more in [*steps, ("deliver", [], 0)]:
        if kind == "open":
            stream = sender.get_next_available_stream_id()
            sender.send_headers(stream, request(what, more))
            open_streams.append(stream)
        elif kind == "deliver":
            for events, new in zip(told, deliver(connections, what), strict=True):
                events += new
        elif what < len(open_streams):
            stream = open_streams[what]
            if kind == "data":
                send(sender, stream, bytes(more % 251 for _ in range(more)), False)
            else:
                open_streams.remove(stream)
                if kind == "reset":
                    sender.reset_stream(stream)
                else:
                    send(sender, stream, b"last" * more, True)
    meanings = [meaning(events) for events in told]
    assert all(m == meanings[0] for m in meanings[1:])
    assert sum(m[0] == "RequestReceived" for m in meanings[0]) == sum(s[0] == "open" for s in steps)


@settings(deadline=None, max_examples=120)
@given(STEPS)
def test_what_h2_sends_means_the_same_to_ours(steps: list[Any]) -> None:
    walk(H2Connection, [H2Connection, Connection], steps)


@settings(deadline=None, max_examples=120)
@given(STEPS)
def test_what_ours_sends_means_the_same_to_h2(steps: list[Any]) -> None:
    walk(Connection, [H2Connection, Connection], steps)


def test_headers_come_out_as_they_went_in() -> None:
    client, server = pair(Connection, Connection)
    for i in range(2000):  # more than the compression table holds
        stream = client.get_next_available_stream_id()
        headers = [*request(f"/p{i % 7}", f"{i}m"), ("authn-token", "t" * (i % 90)), (f"x-{i % 300}", "v" * 30)]
        client.send_headers(stream, headers, end_stream=True)
        events = server.receive_data(client.data_to_send())
        assert isinstance(events[0], RequestReceived)
        assert sorted(events[0].headers) == sorted(headers)
        assert isinstance(events[1], StreamEnded)
        server.send_headers(stream, [(":status", "200"), ("grpc-status", "0"), ("grpc-message", f"no {i}")], True)
        answer = client.receive_data(server.data_to_send())
        assert dict(answer[0].headers)["grpc-message"] == f"no {i}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut", [0, 1, 23, 24, 25, 100])
def test_a_large_frame_may_come_together_with_the_first_bytes(cut: int) -> None:
    client, server = H2Connection(config(True)), Connection(config(False))
    for connection in (server, client):
        connection.initiate_connection()
        connection.update_settings(SETTINGS)
        connection.increment_flow_control_window(1 << 24)
    client.receive_data(server.data_to_send())  # and so it may send large frames, once it has acknowledged
    client.send_headers(1, request("/x"))
    client.send_data(1, b"x" * 100_000, end_stream=True)
    data = client.data_to_send()
    told = meaning(server.receive_data(data[:cut]) + server.receive_data(data[cut:]))
    assert ["data", 1, b"x" * 100_000, 100_000] in told and told[-1] == ["StreamEnded", 1]


def test_a_whole_answer_means_the_same_to_h2() -> None:
    client, server = pair(H2Connection, Connection)
    begin, end = [(":status", "200"), ("content-type", "application/grpc")], [("grpc-status", "0")]
    for body in (b"", b"one", b"x" * (1 << 20), b"one"):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, request("/x"), end_stream=True)
        server.receive_data(client.data_to_send())
        server.ping(b"12345678")
        told = meaning(client.receive_data(server.answer(stream, begin, body, end)))  # type: ignore[attr-defined]
        data = [["data", stream, body, len(body)]] if body else []
        kinds = [["PingReceived", None], ["ResponseReceived", stream, begin], *data, ["TrailersReceived", stream, end]]
        assert told == [*kinds, ["StreamEnded", stream]]
        assert server.streams[stream].closed


def test_an_answer_that_does_not_fit_is_left_to_others() -> None:
    client, server = pair(H2Connection, Connection)
    client.send_headers(1, request("/x"), end_stream=True)
    server.receive_data(client.data_to_send())
    window = server.local_flow_control_window(1)
    assert server.answer(1, [], b"x" * ((1 << 20) + 1), []) == b""  # type: ignore[attr-defined]
    assert server.answer(3, [], b"x", []) == b""  # type: ignore[attr-defined]
    assert server.local_flow_control_window(1) == window and not server.data_to_send()


def test_a_long_header_block_is_continued() -> None:
    client, server = pair(Connection, H2Connection)
    client.max_outbound_frame_size = 100
    client.send_headers(1, [*request("/x"), ("x-long", "ü".encode().hex() * 400)])
    events = server.receive_data(client.data_to_send())
    assert dict(events[0].headers)["x-long"] == "ü".encode().hex() * 400  # type: ignore[attr-defined]


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "data",
    [
        frame(0, 0, 1, b"data of a stream that nobody opened"),
        frame(0, 0, 0, b"data of the connection"),
        frame(1, 4, 2, b"\x82"),
        frame(1, 4, 0, b"\x82"),
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff"),
        frame(1, 4, 1, b"\x00\x01\xff\x01\xff"),
        frame(1, 0, 1, b"\x82") + frame(0, 0, 1, b""),
        frame(9, 4, 1, b"\x82"),
        frame(0, 8, 1, b"\xff"),
        b"\xff\xff\xff" + bytes(6),
        frame(8, 0, 0, bytes(4)),
    ],
    ids=range(11),
)
def test_broken_rules_are_refused(data: bytes) -> None:
    _, server = pair(Connection, Connection)
    with pytest.raises(ProtocolError):
        server.receive_data(data)
    assert server.data_to_send()[3] == 7  # GOAWAY


def test_a_sender_that_ignores_the_window_is_refused() -> None:
    client, server = pair(Connection, Connection)
    client.send_headers(1, request("/x"))
    server.receive_data(client.data_to_send())
    with pytest.raises(FlowControlError):
        for _ in range(40):
            server.receive_data(frame(0, 0, 1, bytes(1 << 20)))


def test_data_of_a_stream_that_was_reset_gives_its_window_back() -> None:
    client, server = pair(Connection, Connection)
    client.send_headers(1, request("/x"))
    server.receive_data(client.data_to_send())
    whole = frame(0, 0, 1, bytes(1 << 20))
    server.receive_data(whole[:1000])
    server.reset_stream(1)
    server.data_to_send()
    for _ in range(60):  # many times what the window of the connection holds
        assert not [e for e in server.receive_data(whole[1000:] + whole[:1000]) if isinstance(e, DataReceived)]
    assert server.inbound_flow_control_window > 1 << 22


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=30)), max_size=8),
    st.integers(1, 20),
)
def test_noise_is_understood_or_refused(frames: list[tuple[int, int, int, bytes]], cut: int) -> None:
    data = b"".join(frame(*f) for f in frames)
    _, server = pair(Connection, Connection)
    try:
        for at in range(0, len(data), cut):
            server.receive_data(data[at : at + cut])
    except ProtocolError:
        pass
