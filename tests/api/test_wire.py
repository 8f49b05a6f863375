"""Batches of messages on the wire, split again whatever the pieces they arrive in."""

import asyncio
import gzip
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from pachd import wire
from pachd.proto import pfs_pb2


class _Arrived:
    """A stream whose data has arrived already, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.acked = 0
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for piece in pieces:
            queue.put_nowait(SimpleNamespace(data=piece, ack_size=len(piece)))
        queue.put_nowait(SimpleNamespace(data=b"", ack_size=0))
        self.buffer = SimpleNamespace(_unacked=queue, _ack_callback=self._ack)

    def _ack(self, size: int) -> None:
        self.acked += size


def _receive(pieces: list[bytes], gunzip: bool = False) -> tuple[list[bytes], int]:
    async def run() -> tuple[list[bytes], int]:
        stream = _Arrived([p for p in pieces if p])
        receiver = wire.Receiver(stream, gunzip)  # type: ignore[arg-type]
        messages: list[bytes] = []
        while batch := await receiver.batch():
            messages += batch
        return messages, stream.acked

    return asyncio.run(run())


@given(st.lists(st.binary(max_size=40), max_size=20), st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_messages_survive_any_split(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(wire.frame(m) for m in messages)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    pieces.append(data[at:])
    received, acked = _receive(pieces)
    assert received == messages
    assert acked == len(data)  # every byte is given back to the peer's window


def test_a_cut_off_message_is_an_error() -> None:
    with pytest.raises(GRPCError, match="middle of a message"):
        _receive([wire.frame(b"hello")[:-1]])


def test_a_huge_message_is_refused_before_it_is_read() -> None:
    with pytest.raises(GRPCError) as caught:
        _receive([b"\0" + (wire.MAX_MESSAGE + 1).to_bytes(4, "big")])
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


def test_gzip() -> None:
    body = gzip.compress(b"x" * 1000)
    framed = b"\1" + len(body).to_bytes(4, "big") + body
    assert _receive([framed], gunzip=True)[0] == [b"x" * 1000]
    with pytest.raises(GRPCError):
        _receive([framed])
    with pytest.raises(GRPCError, match="damaged"):
        _receive([b"\1" + (3).to_bytes(4, "big") + b"abc"], gunzip=True)


def test_batcher_holds_small_messages_back() -> None:
    batcher: wire.Batcher[pfs_pb2.Repo] = wire.Batcher(limit=30)
    assert batcher.add(pfs_pb2.Repo(name="a" * 10)) == b""
    sent = batcher.add(pfs_pb2.Repo(name="b" * 10))
    assert sent == wire.frames([pfs_pb2.Repo(name="a" * 10), pfs_pb2.Repo(name="b" * 10)])
    assert batcher.take() == b""
