"""A client of Pachyderm's gRPC API for synchronous callers: FUSE threads, Django, the command line.

    with Client("127.0.0.1:30650") as c:
        info = c.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=pfs_pb2.Repo(name="images")), timeout=30)
        for file in c.pfs.ListFile(pfs_pb2.ListFileRequest(file=...)):
            ...

Every RPC of a service is a method under its own name. One event loop thread per process carries all calls of all
clients; it is made at the first call, so a process may fork after it has made clients. Streams are handed over in
batches, not message by message: the difference between 16,000 and more than 100,000 files per second.
"""

import asyncio
import os
import queue
import re
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Self, TypeVar

import grpclib.client
import uvloop
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from pachd import wire
from pachd.proto import (  # noqa: F401  (importing them fills the descriptor pool)
    admin_pb2,
    auth_pb2,
    debug_pb2,
    enterprise_pb2,
    identity_pb2,
    license_pb2,
    metadata_pb2,
    pfs_pb2,
    pps_pb2,
    storage_pb2,
    transaction_pb2,
    version_pb2,
    worker_pb2,
)

CONNECT_TIMEOUT = 10.0  # seconds
READ_AHEAD = 8  # batches that a server stream may be ahead of its reader

CARDINALITY = {(c.client_streaming, c.server_streaming): c for c in Cardinality}

T = TypeVar("T")


class RpcError(Exception):
    """A call failed. `code` is the gRPC status, str(error) the server's own words."""

    def __init__(self, code: Status, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Client:
    """A connection to one pachd, made at the first call and made again when it was lost.

    :param address: `HOST:PORT`, `grpc://HOST:PORT`, or `grpcs://HOST:PORT` for TLS.
    :param token: access token, sent as `authn-token` with every call.
    :param timeout: seconds that every call may take unless it says otherwise; None: no limit.
    :param ca_file: PEM file with the certificates to trust in place of the usual ones, for grpcs; None: what the
        environment variable PACHD_CA_FILE names, if it is set.

    Threads may share it. Failures are RpcError; a server that cannot be reached is Status.UNAVAILABLE.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        timeout: float | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.address = address
        self._ca_file = ca_file or os.environ.get("PACHD_CA_FILE") or None
        self._token = token
        self._timeout = timeout
        self._host, self._port, self._tls = _parse_address(address)
        self._channels: dict[int, grpclib.client.Channel] = {}
        self.pfs = Service(self, "pfs_v2.API")
        self.pps = Service(self, "pps_v2.API")
        self.transaction = Service(self, "transaction_v2.API")
        self.admin = Service(self, "admin_v2.API")
        self.version = Service(self, "versionpb_v2.API")
        self.auth = Service(self, "auth_v2.API")
        self.enterprise = Service(self, "enterprise_v2.API")
        self.license = Service(self, "license_v2.API")
        self.identity = Service(self, "identity_v2.API")
        self.metadata = Service(self, "metadata.API")
        self.storage = Service(self, "storage.Fileset")
        self.debug = Service(self, "debug_v2.Debug")
        self.worker = Service(self, "pachyderm.worker.Worker")

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        channel = self._channels.pop(os.getpid(), None)
        if channel is not None:
            loop = _loop()
            loop.call_soon_threadsafe(channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    async def _channel(self) -> grpclib.client.Channel:
        # runs on the loop thread only, so that two callers cannot make two channels
        pid = os.getpid()
        channel = self._channels.get(pid)
        if channel is None:
            # a channel of the parent process is dropped unclosed: its socket is the parent's
            tls = self._trust() if self._tls else None
            channel = self._channels[pid] = _Channel(self._host, self._port, ssl=tls, config=wire.CONFIG)
        return channel

    def _trust(self) -> ssl.SSLContext | bool:
        """Return how to know the server: by the certificates in the CA file, or (True) by the usual ones."""
        if self._ca_file is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise RpcError(Status.UNAVAILABLE, f"the CA file {self._ca_file} is of no use: {reason}") from None
        context.set_alpn_protocols(["h2"])
        return context

    async def _open(self, method: "Method", timeout: float | None, metadata: Mapping[str, str]) -> "_Stream":
        channel = await self._channel()
        sent = dict(metadata)
        if self._token:
            sent.setdefault("authn-token", self._token)
        timeout = self._timeout if timeout is None else timeout
        return channel.request(
            method.path, method.cardinality, method.request_type, method.reply_type, timeout=timeout, metadata=sent
        )

    def _translate(self, error: BaseException) -> BaseException:
        if isinstance(error, GRPCError):
            return RpcError(error.status, error.message or error.status.name)
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            return RpcError(Status.DEADLINE_EXCEEDED, f"pachd at {self.address} did not answer in time")
        if isinstance(error, (StreamTerminatedError, ProtocolError)):
            return RpcError(Status.UNAVAILABLE, f"connection to pachd at {self.address} was lost: {error}")
        if isinstance(error, OSError):
            return RpcError(Status.UNAVAILABLE, f"pachd at {self.address} cannot be reached: {error.strerror or error}")
        if isinstance(error, (asyncio.CancelledError, CancelledError)):
            return RpcError(Status.CANCELLED, "the call was cancelled")
        return error


_Stream = grpclib.client.Stream[Any, Any]


class Service:
    """The RPCs of one service as methods."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._descriptor = descriptor_pool.Default().FindServiceByName(name)

    def __getattr__(self, name: str) -> "Method":
        descriptor = self._descriptor.methods_by_name.get(name)
        if descriptor is None:
            raise AttributeError(f"service {self._descriptor.full_name} has no RPC {name}")
        method = Method(self._client, descriptor)
        setattr(self, name, method)
        return method

    def __dir__(self) -> list[str]:
        return list(self._descriptor.methods_by_name)


class Method:
    """One RPC, called like a function.

    `(request)` or, where the client streams, `(iterable of requests)`; returns the reply or, where the server streams,
    an iterator of replies, which may be closed early to cancel the call. `timeout` is in seconds, for the whole
    call; `metadata` is sent with it, such as `{"pach-transaction": ID}`.
    """

    def __init__(self, client: Client, descriptor: MethodDescriptor) -> None:
        self._client = client
        self.name = descriptor.name
        self.path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self.request_type = message_factory.GetMessageClass(descriptor.input_type)
        self.reply_type = message_factory.GetMessageClass(descriptor.output_type)
        self.cardinality = CARDINALITY[descriptor.client_streaming, descriptor.server_streaming]

    def __call__(
        self,
        request: Message | Iterable[Message] | None = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        metadata = metadata or {}
        if self.cardinality.client_streaming:
            if request is None or isinstance(request, Message):
                raise TypeError(f"{self.name} takes an iterable of {self.request_type.__name__}")
            if self.cardinality.server_streaming:
                return _Replies(self._client, self, None, iter(request), timeout, metadata)
            return self._upload(request, timeout, metadata)
        if request is None:
            request = self.request_type()
        if not isinstance(request, self.request_type):
            raise TypeError(f"{self.name} takes a {self.request_type.__name__}, not a {type(request).__name__}")
        if self.cardinality.server_streaming:
            return _Replies(self._client, self, request, None, timeout, metadata)
        return self._run(self._exchange(wire.frame(request.SerializeToString()), timeout, metadata))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
        try:
            return future.result()
        except (Exception, CancelledError) as e:
            error = self._client._translate(e)
            if error is e:
                raise
            raise error from None
        except BaseException:  # KeyboardInterrupt: nobody waits for the answer any more
            future.cancel()
            raise

    async def _exchange(self, data: bytes, timeout: float | None, metadata: Mapping[str, str]) -> Any:
        """Send all requests, framed, in one go; return the one reply."""
        async with await self._client._open(self, timeout, metadata) as stream:
            await stream.send_request()
            with stream._wrapper:
                await wire.send(stream._stream, [data], end=True)
            _mark_sent(stream)
            await stream.recv_initial_metadata()
            with stream._wrapper:
                replies = await wire.Receiver(stream._stream).batch()
            return self.reply_type.FromString(replies[0]) if replies else None

    def _upload(self, requests: Iterable[Message], timeout: float | None, metadata: Mapping[str, str]) -> Any:
        """Send many requests, get one reply. The iterable runs in the caller's thread, a few writes ahead."""
        batcher: wire.Batcher[Message] = wire.Batcher()
        upload: _Upload | None = None
        try:
            flushed = time.monotonic()
            for count, request in enumerate(requests):
                data = batcher.add(request)
                if not data and not count % 64 and time.monotonic() - flushed > 0.05:
                    data = batcher.take()  # a slow producer: let the server work meanwhile
                if data:
                    flushed = time.monotonic()
                    upload = upload or _Upload(self, timeout, metadata)
                    if not upload.write(data):
                        break
            if upload is None:
                return self._run(self._exchange(batcher.take(), timeout, metadata))
            upload.write(batcher.take())
            upload.finish()
        except BaseException:  # the caller's iterable failed: nothing may be committed
            if upload is not None:
                upload.reply.cancel()
            raise
        return self._run(_wrap(upload.reply))


async def _wrap(future: "Future[T]") -> T:
    return await asyncio.wrap_future(future)


class _Upload:
    """The loop's side of a client stream: takes written bytes from a short queue and sends them."""

    def __init__(self, method: Method, timeout: float | None, metadata: Mapping[str, str]) -> None:
        self._method, self._timeout, self._metadata = method, timeout, metadata
        self._loop = _loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(4)
        self._over = threading.Event()
        self.reply = asyncio.run_coroutine_threadsafe(self._run(), self._loop)

    def write(self, data: bytes) -> bool:
        """Hand over framed messages; False: the server has already answered, more is useless."""
        if self._over.is_set():
            return False
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, data)
        return True

    def finish(self) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    async def _run(self) -> Any:
        sender: asyncio.Task[None] | None = None
        try:
            async with await self._method._client._open(self._method, self._timeout, self._metadata) as stream:
                await stream.send_request()
                sender = asyncio.ensure_future(self._send(stream))
                # a server may refuse a stream before it has read all of it
                answer = asyncio.ensure_future(stream.recv_message())
                try:
                    await asyncio.wait({sender, answer}, return_when=asyncio.FIRST_COMPLETED)
                    if sender.done() and sender.exception() is not None and not answer.done():
                        answer.cancel()
                        sender.result()
                    result = await answer
                finally:
                    answer.cancel()
                    _mark_sent(stream)
                return result
        finally:
            if sender is not None:
                sender.cancel()
            self._over.set()
            for _ in range(4):
                self._room.release()

    async def _send(self, stream: _Stream) -> None:
        while (data := await self._queue.get()) is not None:
            self._room.release()
            if data:
                with stream._wrapper:
                    await wire.send(stream._stream, [data])
        await stream.end()


class _Replies(Iterator[Any]):
    """Iterator over the replies of a server stream; `close()` or the end of the iteration ends the call."""

    def __init__(
        self,
        client: Client,
        method: Method,
        request: Message | None,
        requests: Iterator[Message] | None,
        timeout: float | None,
        metadata: Mapping[str, str],
    ) -> None:
        self._client, self._method = client, method
        self._timeout, self._metadata = timeout, metadata
        self._batches: queue.SimpleQueue[list[bytes] | BaseException | None] = queue.SimpleQueue()
        self._current: Iterator[bytes] = iter(())
        self._parse: Callable[[bytes], Any] = method.reply_type.FromString
        self._done = False
        self._room = asyncio.Semaphore(READ_AHEAD)
        self._loop = _loop()
        self._future = asyncio.run_coroutine_threadsafe(self._pump(request, requests), self._loop)

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
        batch = self._batches.get()
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

    async def _pump(self, request: Message | None, requests: Iterator[Message] | None) -> None:
        # the iterator is referenced by its reader only: a dropped iterator cancels its call
        batches, room = self._batches, self._room
        client, method = self._client, self._method
        opened = client._open(method, self._timeout, self._metadata)
        del self
        sender: asyncio.Task[None] | None = None
        try:
            async with await opened as stream:
                if requests is None:
                    assert request is not None
                    await stream.send_message(request, end=True)
                else:
                    await stream.send_request()
                    sender = asyncio.ensure_future(_feed(stream, requests))
                await stream.recv_initial_metadata()
                receiver = wire.Receiver(stream._stream)
                if not stream._trailers_only:
                    while True:
                        with stream._wrapper:
                            batch = await receiver.batch()
                        if not batch:
                            break
                        await room.acquire()
                        batches.put(batch)
                _mark_sent(stream)
            batches.put(None)
        except asyncio.CancelledError:
            batches.put(RpcError(Status.CANCELLED, "the call was cancelled"))
            raise
        except Exception as e:
            batches.put(client._translate(e))
        finally:
            if sender is not None:
                sender.cancel()


async def _feed(stream: _Stream, requests: Iterator[Message]) -> None:
    """Send the requests of a two-way stream one by one, as soon as the caller's iterator gives them."""
    loop = asyncio.get_running_loop()
    end = object()
    while (request := await loop.run_in_executor(None, next, requests, end)) is not end:
        with stream._wrapper:
            await wire.send(stream._stream, [wire.frame(request.SerializeToString())])  # type: ignore[attr-defined]
    await stream.end()


def _mark_sent(stream: _Stream) -> None:
    """Tell grpclib that sending is over, as what was sent went past it."""
    stream._send_message_done = True
    stream._end_done = True


class _Channel(grpclib.client.Channel):
    def __del__(self) -> None:
        """Say nothing about an open connection: it ends with the process, as the loop thread does."""

    def _protocol_factory(self) -> H2Protocol:
        return wire.tune(super()._protocol_factory())

    async def _create_connection(self) -> H2Protocol:
        return await asyncio.wait_for(super()._create_connection(), CONNECT_TIMEOUT)


_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    """Return this process's event loop, which runs in a thread of its own."""
    loop = _loops.get(os.getpid())
    if loop is None:
        with _lock:
            loop = _loops.get(os.getpid())
            if loop is None:
                loop = uvloop.new_event_loop()
                threading.Thread(target=_run_loop, args=(loop,), name="pachd-client", daemon=True).start()
                _loops[os.getpid()] = loop
    return loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's may be held by a thread that the child does not have


os.register_at_fork(after_in_child=_after_fork)


def _parse_address(address: str) -> tuple[str, int, bool]:
    match = re.fullmatch(r"(?:(grpcs?|https?)://)?(\[[^\]]+\]|[^:/\s]+)(?::(\d{1,5}))?/?", address)
    if match is None:
        raise ValueError(f"{address!r} is not an address: write HOST:PORT or grpc://HOST:PORT")
    scheme, host, port = match.groups()
    return host.strip("[]"), int(port or 30650), scheme in ("grpcs", "https")


COMMIT_ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{19}")


def parse_ref(ref: str, project: str = "default") -> pfs_pb2.File:
    """Parse `[project/]repo[.type][@branch][=commit][:path]`, as pachctl writes it.

    :return: a File whose commit names the repo and the branch or the commit. Without both, the branch is `master`.
        What follows `@` is a commit if it looks like one (32 hex digits, a version 4 UUID). Ancestry (`master^`,
        `master~2`) stays in the name for the server to resolve. The path is "" when there is none.
    :raises ValueError: the text has not this form.
    """
    match = re.fullmatch(r"(?:([^/@:=]+)/)?([^/@:=]+)(?:@([^=:]*)(?:=([^:]*))?|=([^:]*))?(?::(.*))?", ref, re.DOTALL)
    if match is None:
        raise ValueError(f"{ref!r} is not a reference: write [project/]repo[@branch|=commit][:path]")
    named, repo, branch, id_after_branch, id_alone, path = match.groups()
    name, _, kind = repo.partition(".")
    repo_pb = pfs_pb2.Repo(name=name, type=kind or "user", project=pfs_pb2.Project(name=named or project))
    commit = pfs_pb2.Commit(repo=repo_pb, id=id_after_branch or id_alone or "")
    if branch and COMMIT_ID.fullmatch(branch.rstrip("^~.0123456789") if len(branch) > 32 else branch):
        commit.id = commit.id or branch
    elif branch or not commit.id:
        commit.branch.CopyFrom(pfs_pb2.Branch(repo=repo_pb, name=branch or "master"))
    return pfs_pb2.File(commit=commit, path=path or "")
