"""How a gRPC service is written down: one class per service, one method per RPC.

    class API(Service):
        name = "pfs_v2.API"

        @read
        def InspectRepo(self, snapshot, request, call): return repo_info          # a message
        @read
        def ListRepo(self, snapshot, request, call): yield repo_info               # messages, or bytes already framed
        @write(transactional="create_repo")
        def CreateRepo(self, txn, request, call): ...                              # None: an empty reply
        async def SubscribeCommit(self, call): ...                                 # everything by hand

`read` and `write` methods belong to the synchronous core's side: they run in threads, a reader in one snapshot, a
writer in one durable transaction, and may raise any error of `pachd.errors`. A plain coroutine has the `Call` for
itself; waits and subscriptions are such coroutines, as a waiting client must not cost a thread.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream

from pachd import wire
from pachd.api.context import Context
from pachd.api.errors import to_grpc
from pachd.api.guard import Denied, Pass
from pachd.api.validate import validate
from pachd.errors import PachError
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn

log = logging.getLogger(__name__)

# What grpclib would send, without asking its hooks, which nobody uses, for every call.
HEADERS = [(":status", "200"), ("content-type", "application/grpc+proto")]
TRAILERS = [("grpc-status", "0")]
FIRST_BATCH = 16 << 10  # bytes; the first entries of a listing should not wait for many others
CARDINALITY = {(c.client_streaming, c.server_streaming): c for c in Cardinality}

ReadMethod = Callable[[Any, Snapshot, Any, "Call"], Any]
_Generator = Generator[tuple[list[bytes], bool], None, None]
WriteMethod = Callable[[Any, Txn, Any, "Call"], Any]


class Read:
    """A method that reads; made by `@read`."""

    def __init__(self, fn: ReadMethod) -> None:
        self.fn = fn


class Write:
    """A method that writes; made by `@write`. `transactional`: its field in a TransactionRequest, if it has one."""

    def __init__(self, fn: WriteMethod, transactional: str = "") -> None:
        self.fn = fn
        self.transactional = transactional


def read(fn: ReadMethod) -> Read:
    """Mark `fn(self, snapshot, request, call)`: a reply, or an iterator of replies where the RPC streams."""
    return Read(fn)


def write(transactional: str = "") -> Callable[[WriteMethod], Write]:
    """Mark `fn(self, txn, request, call)`: a reply or None.

    :param transactional: with this name of a field of TransactionRequest, a call that carries a `pach-transaction` is
        appended to that transaction instead of being executed.
    """

    def mark(fn: WriteMethod) -> Write:
        return Write(fn, transactional)

    return mark


class Call:
    """One call that a client made.

    `metadata` is what it sent besides; `user_agent` who it says it is; `context` the server's store and threads.
    """

    def __init__(self, context: Context, stream: "Stream[Any, Any]", method: MethodDescriptor) -> None:
        self.context = context
        self.method = f"/{method.containing_service.full_name}/{method.name}"
        self.metadata: dict[str, str] = {k: v for k, v in (stream.metadata or {}).items() if isinstance(v, str)}
        self.user_agent = stream.user_agent or ""
        self.request_type = message_factory.GetMessageClass(method.input_type)
        self.reply_type = message_factory.GetMessageClass(method.output_type)
        self._streams = method.client_streaming or method.server_streaming
        self._replies = method.server_streaming
        self._reply = b""  # the only one, framed; sent together with the end
        self._stream = stream
        self.access: Pass | None = None  # while access control is active
        self._receiver = wire.Receiver(stream._stream, gunzip=True)

    @property
    def transaction(self) -> str:
        """ID of the transaction that this call belongs to, or "". Clients really send an empty one."""
        return self.metadata.get("pach-transaction", "")

    @property
    def principal(self) -> str:
        """Who calls; "" while access control is off."""
        return self.access.principal if self.access is not None else ""

    @property
    def old_client(self) -> bool:
        """python-pachyderm 7.6 expects `commit.branch` in answers; every other client expects it empty."""
        return self.user_agent.startswith("python-pachyderm")

    async def request(self, later: bool = False) -> Any:
        """Return the one request of a unary call; a call without any is one with an empty message.

        :param later: whether the caller may make it is asked when it is executed, as a part of its transaction.

        :raises GRPCError: the bytes are no such message, or a required field is missing.
        :raises PachError: the caller may not make this request.
        """
        batch = await self._receiver.batch()
        request = self.parse(batch[0] if batch else b"")
        if not later:
            await self.authorize(request)
        return request

    async def authorize(self, request: Any) -> None:
        """Raise an error if the caller may not make this request; unary requests have been asked about already."""
        access = self.access
        if access is not None and access.rule.check is not None:
            await self.context.read(lambda snapshot: access.check(snapshot, request))

    def authorize_now(self, request: Any) -> None:
        """The same in a thread of the core."""
        if self.access is not None:
            with self.context.store.read() as snapshot:
                self.access.check(snapshot, request)

    def shown(self, snapshot: Snapshot, request: Any, reply: Any) -> Any:
        """Return a reply, or an iterator of replies, as the caller may see it."""
        return reply if self.access is None else self.access.show(snapshot, request, reply)

    def parse(self, data: bytes) -> Any:
        """Return a request from its bytes; errors as for `request`."""
        request = self.request_type.FromString(data)
        validate(request, self._streams)
        return request

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Iterate over the requests of a streaming client: lists of encoded messages, as they arrive."""
        while batch := await self._receiver.batch():
            yield batch

    async def reply(self, message: Message) -> None:
        """Send one reply; if there is only one, with the end of the call."""
        framed = wire.frame(message.SerializeToString())
        if self._replies:
            await self.send(framed)
        else:
            self._reply = framed

    async def send(self, *framed: bytes) -> None:
        """Send replies that are already encoded and framed (see `pachd.wire`), perhaps in pieces."""
        stream = self._stream
        if not stream._send_initial_metadata_done:
            await stream._stream.send_headers(HEADERS)
            stream._send_initial_metadata_done = True
        await wire.send(stream._stream, framed)
        stream._send_message_done = True

    async def end(self) -> None:
        """Tell the client that its call, which had replies, has ended well."""
        stream = self._stream
        if self._reply:
            if wire.answer(stream._stream, HEADERS, self._reply, TRAILERS):
                stream._send_initial_metadata_done = stream._send_message_done = True
                stream._send_trailing_metadata_done = True
                return
            await self.send(self._reply)
        if stream._send_message_done and not stream._send_trailing_metadata_done:
            await stream._stream.send_headers(TRAILERS, end_stream=True)
            wire.corked(stream._stream).flush()
            stream._send_trailing_metadata_done = True

    async def send_all(self, make: Callable[[Snapshot], Iterator[Message | bytes]]) -> None:
        """Stream what an iterator of the core gives, in batches, one batch ahead of the network.

        What fits into one batch is sent together with the end of the call.
        """
        context = self.context

        def batches() -> _Generator:
            with context.store.read() as snapshot:
                yield from _batched(make(snapshot))

        iterator = _Batches(batches())
        upcoming = asyncio.ensure_future(context.pull(iterator))
        first = True
        try:
            while data := await upcoming:
                if iterator.ended:
                    if first and sum(map(len, data)) <= FIRST_BATCH:
                        self._reply = b"".join(data)
                    else:
                        await self.send(*data)
                    return
                first = False
                upcoming = asyncio.ensure_future(context.pull(iterator))
                await self.send(*data)
        finally:
            if not upcoming.done():
                upcoming.cancel()
            elif not upcoming.cancelled():
                upcoming.exception()  # it was raised above, or nobody is left to care
            if not iterator.ended:
                context.finish(iterator)


class _Batches(Iterator[list[bytes]]):
    """The batches of an answer. `ended`: there are no more; whoever takes the last one is not asked to come again."""

    def __init__(self, batches: _Generator) -> None:
        self._batches = batches
        self.ended = False

    def __next__(self) -> list[bytes]:
        batch, last = next(self._batches)
        if last:
            next(self._batches, None)  # it lets go of its snapshot
            self.ended = True
        return batch

    def close(self) -> None:
        self._batches.close()


def _batched(items: Iterator[Message | bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Gather items into batches, each with whether it is the last; large ones stay pieces of their own, which are sent
    without being copied."""
    parts: list[bytes] = []
    size, limit = 0, FIRST_BATCH
    try:
        for item in items:
            data = item if isinstance(item, bytes) else wire.frame(item.SerializeToString())
            parts.append(data)
            size += len(data)
            if size >= limit:
                yield parts if len(data) >= wire.LARGE else [b"".join(parts)], False
                parts, size, limit = [], 0, wire.BATCH
    except PachError:
        if parts:  # what came before the error is an answer too
            yield parts, False
        raise
    if parts:
        yield [b"".join(parts)], True


class Service:
    """Base of all services. `name` is the full name of the gRPC service."""

    name = ""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __mapping__(self) -> dict[str, Handler]:
        """Return the handlers of this service's RPCs by path; those that the class does not have are left out."""
        service = descriptor_pool.Default().FindServiceByName(self.name)
        mapping = {}
        for method in service.methods:
            implementation = getattr(self, method.name, None)
            if implementation is not None:
                mapping[f"/{self.name}/{method.name}"] = Handler(
                    self._handler(method, implementation),
                    CARDINALITY[method.client_streaming, method.server_streaming],
                    message_factory.GetMessageClass(method.input_type),
                    message_factory.GetMessageClass(method.output_type),
                )
        return mapping

    def _handler(self, method: MethodDescriptor, implementation: Any) -> Callable[["Stream[Any, Any]"], Any]:
        context = self.context

        async def handle(stream: "Stream[Any, Any]") -> None:
            call = Call(context, stream, method)
            with context.observer.watch(call):
                await self._answer(call, method, implementation)
                await call.end()

        return handle

    async def _answer(self, call: Call, method: MethodDescriptor, implementation: Any) -> None:
        try:
            call.access = await self.context.guard.admit(call)
            if isinstance(implementation, Read):
                await self._read(call, implementation, method.server_streaming)
            elif isinstance(implementation, Write):
                await self._write(call, implementation, method.server_streaming)
            else:
                await implementation(call)
        except Denied as denied:
            await call.reply(denied.reply)
        except (TimeoutError, StreamTerminatedError):
            raise  # the client is gone, or its deadline is over: grpclib's own
        except Exception as error:
            raise to_grpc(error, call.method) from None

    async def _read(self, call: Call, implementation: Read, streams: bool) -> None:
        request = await call.request()
        context = self.context

        def answer(snapshot: Snapshot) -> Any:
            return call.shown(snapshot, request, implementation.fn(self, snapshot, request, call))

        if streams:
            await context.patiently(lambda: call.send_all(answer))
        else:
            await call.reply(await context.patiently(lambda: context.read(answer)))

    async def _write(self, call: Call, implementation: Write, streams: bool) -> None:
        collected = bool(implementation.transactional and call.transaction)
        request = await call.request(later=collected)
        reply: Any
        if collected:
            from pachd.api.transaction import append

            response = await self.context.write(
                lambda txn: append(txn, call.transaction, implementation.transactional, request)
            )
            reply = _transactional_reply(call, response)
        else:
            reply = await self.context.write(lambda txn: implementation.fn(self, txn, request, call))
        if streams:
            await call.send(wire.frames(reply) if reply is not None else b"")
        else:
            await call.reply(reply if reply is not None else call.reply_type())


def _transactional_reply(call: Call, response: Any) -> Message | None:
    """Return what a request answers that is only part of a transaction so far."""
    if call.reply_type is pfs_pb2.Commit:
        commit: pfs_pb2.Commit = response.commit
        if not call.old_client:
            commit.ClearField("branch")
        return commit
    if call.reply_type is pfs_pb2.DeleteRepoResponse:
        return pfs_pb2.DeleteRepoResponse(deleted=True)
    return None


# Services of Pachyderm of which nothing is here, not even a description.
_LEFT_OUT = ("logs.API", "pjs.API", "proxy.API", "snapshot.API")


def unimplemented(path: str) -> Handler:
    """Return the handler of an RPC that this server does not have. What Pachyderm does not have either is told in the
    words of its gRPC library."""

    async def handle(stream: "Stream[Any, Any]") -> None:
        service, slash, method = path.removeprefix("/").rpartition("/")
        words = f"{method} of the service {service} is not available in this pachd"
        try:
            known = descriptor_pool.Default().FindServiceByName(service)
        except KeyError:
            if not slash:
                words = f'malformed method name: "{path}"'
            elif service not in _LEFT_OUT:
                words = f"unknown service {service}"
        else:
            if method not in known.methods_by_name:
                words = f"unknown method {method} for service {service}"
        raise GRPCError(Status.UNIMPLEMENTED, words)

    return Handler(handle, Cardinality.STREAM_STREAM, bytes, bytes)
