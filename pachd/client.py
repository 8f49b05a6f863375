"""A client of Pachyderm's gRPC API for synchronous callers: FUSE threads, Django, the command line.

    with Client("127.0.0.1:30650") as c:
        info = c.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=pfs_pb2.Repo(name="images", type="user")), timeout=30)
        for file in c.pfs.ListFile(pfs_pb2.ListFileRequest(file=...)):
            ...

Every RPC of a service is a method under its own name. One event loop thread per process carries all calls of all
clients; it is made at the first call, so a process may fork after it has made clients. Streams are handed over in
batches, not message by message: the difference between 16,000 and more than 100,000 files per second.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Self

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from pachd import calls, direct, streams, wire
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

_Options = tuple[str, float | None, Mapping[str, str]]  # of a call: path, timeout in seconds, metadata


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

    :raises ValueError: an address or a token that cannot be one.

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
        if token is not None and not re.fullmatch("[ -~]*", token):
            raise ValueError("the token has characters that cannot be sent, such as a line break")
        self._token = token
        self._timeout = timeout
        self._host, self._port, self._tls = _parse_address(address)
        self._channels: dict[int, calls.Channel] = {}  # by process, as what follows
        self._direct: dict[int, direct.Connections] = {}
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
        connections = self._direct.pop(os.getpid(), None)
        if connections is not None:
            connections.close()
        channel = self._channels.pop(os.getpid(), None)
        if channel is not None:
            calls.loop().call_soon_threadsafe(channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def _channel(self) -> calls.Channel:
        # runs on the loop thread only, so that two callers cannot make two channels
        pid = os.getpid()
        channel = self._channels.get(pid)
        if channel is None:
            # a channel of the parent process is dropped unclosed: its socket is the parent's
            tls = self._trust() if self._tls else None
            channel = self._channels[pid] = calls.Channel(self._host, self._port, tls)
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

    def _open(self, path: str, timeout: float | None, metadata: Mapping[str, str]) -> calls.Call:
        """Return a call to be entered on the loop, on whose thread this runs."""
        return calls.Call(self._channel(), path, timeout, metadata)

    def _exchange(self, path: str, timeout: float | None, metadata: Mapping[str, str], data: bytes) -> bytes | None:
        """Send a whole request, framed; return the one reply."""
        if not self._tls:
            connections = self._direct.get(os.getpid())
            if connections is None:
                connections = self._direct.setdefault(os.getpid(), direct.Connections(self._host, self._port))
            carried_out, reply = connections.call(path, timeout, metadata, data)
            if carried_out:
                return reply
        return calls.run(_exchange(partial(self._open, path, timeout, metadata), data))

    def _translate(self, error: BaseException) -> BaseException:
        if isinstance(error, GRPCError):
            return RpcError(error.status, error.message or error.status.name)
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            return RpcError(Status.DEADLINE_EXCEEDED, f"pachd at {self.address} did not answer in time")
        if isinstance(error, (StreamTerminatedError, ProtocolError, H2Error)):
            return RpcError(Status.UNAVAILABLE, f"connection to pachd at {self.address} was lost: {error}")
        if isinstance(error, OSError):
            return RpcError(Status.UNAVAILABLE, f"pachd at {self.address} cannot be reached: {error.strerror or error}")
        if isinstance(error, (asyncio.CancelledError, CancelledError)):
            return RpcError(Status.CANCELLED, "the call was cancelled")
        return error


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
        self._client_streams, self._server_streams = descriptor.client_streaming, descriptor.server_streaming

    def __call__(
        self,
        request: Message | Iterable[Message] | None = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        client = self._client
        metadata = metadata or {}
        if client._token:
            metadata = {"authn-token": client._token, **metadata}
        options = self.path, client._timeout if timeout is None else timeout, metadata
        call = partial(client._open, *options)
        if self._client_streams:
            if request is None or isinstance(request, Message):
                raise TypeError(f"{self.name} takes an iterable of {self.request_type.__name__}")
            return self._replies(call, iter(request)) if self._server_streams else self._upload(options, request)
        if request is None:
            request = self.request_type()
        if not isinstance(request, self.request_type):
            raise TypeError(f"{self.name} takes a {self.request_type.__name__}, not a {type(request).__name__}")
        data = wire.frame(request.SerializeToString())
        return self._replies(call, data) if self._server_streams else self._run(client._exchange, *options, data)

    def _replies(self, call: streams.Open, requests: bytes | Iterator[Message]) -> streams.Replies:
        return streams.Replies(call, self._client._translate, self.reply_type.FromString, requests)

    def _run(self, exchange: Callable[..., bytes | None], *args: Any) -> Any:
        """Return the reply that `exchange(*args)` gets; errors are RpcError."""
        try:
            reply = exchange(*args)
        except (Exception, asyncio.CancelledError, CancelledError) as e:
            error = self._client._translate(e)
            if error is e:
                raise
            raise error from None
        return None if reply is None else self.reply_type.FromString(reply)

    def _upload(self, options: _Options, requests: Iterable[Message]) -> Any:
        """Send many requests, get one reply. The iterable runs in the caller's thread, a few writes ahead."""
        batcher: wire.Batcher[Message] = wire.Batcher()
        upload: streams.Upload | None = None
        try:
            flushed = time.monotonic()
            for count, request in enumerate(requests):
                data = batcher.add(request)
                if not data and not count % 64 and time.monotonic() - flushed > 0.05:
                    data = batcher.take()  # a slow producer: let the server work meanwhile
                if data:
                    flushed = time.monotonic()
                    upload = upload or streams.Upload(partial(self._client._open, *options))
                    if not upload.write(data):
                        break
            if upload is None:
                return self._run(self._client._exchange, *options, batcher.take())
            upload.write(batcher.take())
            upload.finish()
        except BaseException:  # the caller's iterable failed: nothing may be committed
            if upload is not None:
                upload.cancel()
            raise
        return self._run(calls.run, upload.reply())


async def _exchange(open_call: streams.Open, data: bytes) -> bytes | None:
    """Send all requests, framed, in one go; return the one reply."""
    async with open_call() as call:
        await call.send([data], end=True)
        replies = await call.batch()
        if replies:
            await call.batch()  # there are none, but how the call ended
        return replies[0] if replies else None


def _parse_address(address: str) -> tuple[str, int, bool]:
    match = re.fullmatch(r"(?:(grpcs?|https?)://)?(\[[^\]]+\]|[^:/\s]+)(?::(\d{1,5}))?/?", address)
    if match is None:
        raise ValueError(f"{address!r} is not an address: write HOST:PORT or grpc://HOST:PORT")
    scheme, host, port = match.groups()
    if port and not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not an address: ports go from 1 to 65535")
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
