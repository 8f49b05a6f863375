"""gRPC calls on an event loop, for `pachd.client`: one connection, one call, and the thread that they run in.

grpclib makes the connection; a call is made here, on its HTTP/2 streams, in batches of messages and without the
hooks and checks that its own calls have for each message.
"""

import asyncio
import os
import ssl
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

import grpclib.client
import uvloop
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline, decode_grpc_message, encode_metadata, encode_timeout
from grpclib.protocol import H2Protocol
from grpclib.utils import DeadlineWrapper, Wrapper

from pachd import wire

CONNECT_TIMEOUT = 10.0  # seconds
USER_AGENT = grpclib.client.USER_AGENT

# What something between us and the server answers, which knows no gRPC. Source: gRPC's "HTTP to gRPC status codes".
_HTTP_STATUS = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}

T = TypeVar("T")


class Channel(grpclib.client.Channel):
    """A connection, made at the first call and made again when it was lost; to be used on one event loop."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | bool | None) -> None:
        super().__init__(host, port, ssl=tls or None, config=wire.CONFIG)

    def __del__(self) -> None:
        """Say nothing about an open connection: it ends with the process, as the loop thread does."""

    def _protocol_factory(self) -> H2Protocol:
        return wire.tune(super()._protocol_factory())

    async def _create_connection(self) -> H2Protocol:
        return await asyncio.wait_for(super()._create_connection(), CONNECT_TIMEOUT)


class Call:
    """One call: `async with Call(…) as call`, which connects and sends the headers; leaving early cancels it.

    :param path: `/service/Method`.
    :param timeout: seconds for the whole call; None: no limit.
    :param metadata: sent with it.

    Its methods, and entering it, raise GRPCError (the server's status), StreamTerminatedError (the connection was
    lost), asyncio.TimeoutError, or OSError (nobody listens).
    """

    def __init__(self, channel: Channel, path: str, timeout: float | None, metadata: Mapping[str, str]) -> None:
        self._channel, self._path, self._timeout, self._metadata = channel, path, timeout, metadata
        self._headers_checked = False

    async def __aenter__(self) -> Self:
        self._wrapper = Wrapper()
        self._timer: AbstractContextManager[None] | None = None
        if self._timeout is not None:
            self._wrapper = wrapper = DeadlineWrapper()
            self._timer = wrapper.start(Deadline.from_timeout(self._timeout))
            self._timer.__enter__()
        try:
            with self._wrapper:
                protocol = await self._channel.__connect__()
                if protocol.processor.connection.is_closing():  # lost as soon as it was there: a server that wants TLS
                    raise StreamTerminatedError("Connection lost")
                self._stream = protocol.processor.connection.create_stream(wrapper=self._wrapper)
                self._receiver: wire.Receiver | None = None
                scheme, authority = self._channel._scheme, self._channel._authority
                headers = request_headers(self._path, scheme, authority, self._timeout, self._metadata)
                self._release = await self._stream.send_request(headers, _processor=protocol.processor)
        except BaseException:
            self._stop_timer()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stop_timer()
        if self._stream.closable:
            self._stream.reset_nowait()
        self._release()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.__exit__(None, None, None)

    async def send(self, parts: Sequence[wire.Buffer], end: bool = False) -> None:
        """Send framed messages, given in pieces; `end`: there are no more."""
        with self._wrapper:
            await wire.send(self._stream, parts, end)

    async def batch(self) -> list[bytes]:
        """Return the next encoded replies, at least one; an empty list when the call has ended well."""
        try:
            with self._wrapper:
                return await self._batch()
        except StreamTerminatedError:
            answer = self._stream.trailers or self._stream.headers
            if answer is None or "grpc-status" not in dict(answer):
                raise
            check_status(dict(answer))  # the server had answered before it ended the stream
            raise

    async def _batch(self) -> list[bytes]:
        if self._receiver is None:
            headers = dict(await self._stream.recv_headers())
            check_headers(headers)
            if "grpc-status" in headers:  # there is nothing but trailers
                check_status(headers)
                return []
            self._receiver = wire.Receiver(self._stream)
        messages = await self._receiver.batch()
        if not messages:
            check_status(dict(await self._stream.recv_trailers()))
        return messages


def request_headers(
    path: str, scheme: str, authority: str, timeout: float | None, metadata: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the headers of a call.

    :param timeout: seconds for the whole call; None: no limit.
    """
    headers = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", USER_AGENT),
    ]
    if timeout is not None:
        headers.append(("grpc-timeout", encode_timeout(timeout)))
    if metadata:
        headers += encode_metadata(metadata)
    return headers


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise GRPCError if what answers is no gRPC server."""
    status = headers.get(":status", "")
    if status != "200":
        raise GRPCError(_HTTP_STATUS.get(status, Status.UNKNOWN), f"the server answered with the HTTP status {status}")
    if not headers.get("content-type", "").startswith("application/grpc"):
        raise GRPCError(Status.UNKNOWN, "the server does not speak gRPC")


def check_status(trailers: Mapping[str, str]) -> None:
    """Raise GRPCError if a call ended in an error."""
    value = trailers.get("grpc-status")
    if value == "0":
        return
    try:
        status = Status(int(value or ""))
    except ValueError:
        raise GRPCError(Status.UNKNOWN, f"the server ended the call without a known status: {value}") from None
    raise GRPCError(status, decode_grpc_message(trailers.get("grpc-message", "")))


# -- the thread ----------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def loop() -> asyncio.AbstractEventLoop:
    """Return this process's event loop, which runs in a thread of its own."""
    found = _loops.get(os.getpid())
    if found is None:
        with _lock:
            found = _loops.get(os.getpid())
            if found is None:
                found = uvloop.new_event_loop()
                threading.Thread(target=_run_loop, args=(found,), name="pachd-client", daemon=True).start()
                _loops[os.getpid()] = found
    return found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and return its result, or raise its error; an interrupted wait cancels it."""
    on = loop()
    waiting = _Waiting(coroutine)
    on.call_soon_threadsafe(waiting.start, on)
    try:
        waiting.over.acquire()
    except BaseException:  # KeyboardInterrupt: nobody waits for the answer any more
        on.call_soon_threadsafe(waiting.cancel)
        raise
    if waiting.error is not None:
        raise waiting.error
    return waiting.result  # type: ignore[return-value]


class _Waiting:
    """A thread that waits for a coroutine: a lock is all it takes."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        self.over = threading.Lock()
        self.over.acquire()
        self.result: object = None
        self.error: BaseException | None = None

    def start(self, on: asyncio.AbstractEventLoop) -> None:
        self._task = on.create_task(self._carry_out())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _carry_out(self) -> None:
        try:
            self.result = await self._coroutine
        except BaseException as error:
            self.error = error
        self.over.release()


def _run_loop(on: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(on)
    on.run_forever()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's may be held by a thread that the child does not have


os.register_at_fork(after_in_child=_after_fork)
