"""Streams of gRPC calls as threads see them: an upload takes bytes from a thread, replies are an iterator for one."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from google.protobuf.message import Message
from grpclib.exceptions import GRPCError

from pachd import calls, wire

READ_AHEAD = 8  # batches that a server stream may be ahead of its reader
WRITE_AHEAD = 4  # writes that a thread may be ahead of the network

Open = Callable[[], calls.Call]
"""Makes the call; asked on the loop's thread."""

Translate = Callable[[BaseException], BaseException]
"""From errors of `pachd.calls` to those that callers see."""


class Upload:
    """A client stream with one reply: takes written bytes from a short queue and sends them."""

    def __init__(self, open_call: Open) -> None:
        self._open = open_call
        self._loop = calls.loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(WRITE_AHEAD)
        self._over = threading.Event()
        self._reply = asyncio.run_coroutine_threadsafe(self._run(), self._loop)

    def write(self, data: bytes) -> bool:
        """Hand over framed messages; False: the server has already answered, more is useless."""
        if self._over.is_set():
            return False
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, data)
        return True

    def finish(self) -> None:
        """There is no more to send."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def cancel(self) -> None:
        """Give up the call."""
        self._reply.cancel()

    async def reply(self) -> bytes | None:
        """Return the encoded reply when it is there."""
        return await asyncio.wrap_future(self._reply)

    async def _run(self) -> bytes | None:
        sender: asyncio.Task[None] | None = None
        try:
            async with self._open() as call:
                sender = asyncio.ensure_future(self._send(call))
                # a server may refuse a stream before it has read all of it
                answer = asyncio.ensure_future(_answer(call))
                try:
                    await asyncio.wait({sender, answer}, return_when=asyncio.FIRST_COMPLETED)
                    if sender.done() and sender.exception() is not None and not answer.done():
                        await asyncio.wait({answer}, timeout=1)  # the server's own words, if it said any
                        if not answer.done() or not isinstance(answer.exception(), GRPCError):
                            sender.result()
                    return await answer
                finally:
                    answer.cancel()
        finally:
            if sender is not None:
                sender.cancel()
            self._over.set()
            for _ in range(WRITE_AHEAD):
                self._room.release()

    async def _send(self, call: calls.Call) -> None:
        while (data := await self._queue.get()) is not None:
            self._room.release()
            if data:
                await call.send([data])
        await call.send([], end=True)


async def _answer(call: calls.Call) -> bytes | None:
    first: bytes | None = None
    while batch := await call.batch():
        first = first or batch[0]
    return first


class Replies(Iterator[Any]):
    """Iterator over the replies of a server stream; `close()` or the end of the iteration ends the call.

    :param open_call: makes the call.
    :param requests: the one request, framed, or an iterator of requests.

    `patience`, if it is set, is how many seconds the next reply is waited for before the call ends with
    DEADLINE_EXCEEDED, however much time the whole call has.
    """

    patience: float | None = None

    def __init__(
        self, open_call: Open, translate: Translate, parse: Callable[[bytes], Any], requests: bytes | Iterator[Message]
    ) -> None:
        self._batches: queue.SimpleQueue[list[bytes] | BaseException | None] = queue.SimpleQueue()
        self._current: Iterator[bytes] = iter(())
        self._parse, self._translate = parse, translate
        self._done = False
        self._room = asyncio.Semaphore(READ_AHEAD)
        self._loop = calls.loop()
        # the iterator is referenced by its reader only: a dropped iterator cancels its call
        pump = _pump(open_call, translate, requests, self._batches, self._room)
        self._future = asyncio.run_coroutine_threadsafe(pump, self._loop)

    def __next__(self) -> Any:
        data = next(self._current, None)
        if data is None:
            data = self._refill()
        return self._parse(data)

    def __iter__(self) -> Self:
        return self

    def batches(self) -> Iterator[list[bytes]]:
        """Iterate over what has arrived, as lists of encoded messages: for callers that decode in bulk."""
        rest = list(self._current)
        if rest:
            yield rest
        while True:
            try:
                first = self._refill()
            except StopIteration:
                return
            yield [first, *self._current]

    def _refill(self) -> bytes:
        if self._done:
            raise StopIteration
        try:
            batch = self._batches.get(timeout=self.patience)
        except queue.Empty:
            self.close()
            raise self._translate(TimeoutError()) from None
        if isinstance(batch, list):
            self._loop.call_soon_threadsafe(self._room.release)
            self._current = iter(batch)
            return next(self._current)
        self._done = True
        if batch is None:
            raise StopIteration
        raise batch

    def close(self) -> None:
        """Cancel the call if it still runs."""
        if not self._done:
            self._done = True
            self._current = iter(())
            self._future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_done", True):
            self.close()


async def _pump(
    open_call: Open,
    translate: Translate,
    requests: bytes | Iterator[Message],
    batches: "queue.SimpleQueue[list[bytes] | BaseException | None]",
    room: asyncio.Semaphore,
) -> None:
    """Carry out a call whose replies go to a queue, with None or an error behind the last."""
    sender: asyncio.Task[None] | None = None
    try:
        async with open_call() as call:
            if isinstance(requests, bytes):
                await call.send([requests], end=True)
            else:
                sender = asyncio.ensure_future(_feed(call, requests))
            while batch := await call.batch():
                await room.acquire()
                batches.put(batch)
        batches.put(None)
    except BaseException as error:
        batches.put(translate(error))
        if not isinstance(error, Exception):
            raise
    finally:
        if sender is not None:
            sender.cancel()


async def _feed(call: calls.Call, requests: Iterator[Message]) -> None:
    """Send the requests of a two-way stream one by one, as soon as the caller's iterator gives them."""
    loop = asyncio.get_running_loop()
    end = object()
    while (request := await loop.run_in_executor(None, next, requests, end)) is not end:
        await call.send([wire.frame(request.SerializeToString())])  # type: ignore[attr-defined]
    await call.send([], end=True)
