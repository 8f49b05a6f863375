"""The gRPC server: every service on one port, UNIMPLEMENTED with a sentence for the rest."""

import asyncio
import importlib.metadata
import importlib.util
import logging
import signal
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import grpclib.server
from grpclib.const import Handler
from grpclib.health.service import Health
from grpclib.protocol import H2Protocol

from pachd import wire
from pachd.api.context import Context
from pachd.api.monitoring import Monitoring
from pachd.api.service import unimplemented
from pachd.auth import tokens
from pachd.pfs.clock import Clock
from pachd.store import Store

# Modules with a list SERVICES of Service classes.
MODULES = (
    "pachd.api.cluster",
    "pachd.api.auth",
    "pachd.api.debug",
    "pachd.api.pfs",
    "pachd.api.filesets",
    "pachd.api.metadata",
    "pachd.api.transaction",
    "pachd.api.pps",
)
STOP_TIMEOUT = 10.0  # seconds that running calls get to notice that the server stops
_SWEEP = 24 * 3600.0  # seconds

log = logging.getLogger(__name__)


class _Handlers(dict[str, Handler]):
    """All handlers by path; a path that is not there gets one that says so."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or unimplemented(path)


class Server(grpclib.server.Server):
    """A gRPC server with the services of pachd.

    :param context: the store and threads that the services share.
    """

    def __init__(self, context: Context) -> None:
        super().__init__([*_services(context), Health()], config=wire.CONFIG)
        self._mapping = _Handlers(self._mapping)
        self._context = context

    async def drain(self, seconds: float) -> None:
        """Take no more calls, end those that wait for news, and give the others some time to end."""
        if self._server is None:
            return
        self._server.close()
        self._context.drain()
        observer, until = self._context.observer, self._loop.time() + seconds
        while observer.running and self._loop.time() < until:
            await asyncio.sleep(0.02)
        if observer.running:
            log.warning("%d calls did not end within %g seconds and are cut off", observer.running, seconds)

    def calls(self) -> int:
        """Return how many calls are under way; those that begin are among them as soon as they have been read."""
        return sum(not task.done() for handler in self._handlers for task in handler._tasks.values())

    def _protocol_factory(self) -> H2Protocol:
        return wire.tune(super()._protocol_factory())


def _services(context: Context) -> Iterable[Any]:
    for name in MODULES:
        if (
            importlib.util.find_spec(name) is None
        ):  # a build without that part: its RPCs say that they are not available
            continue
        for service in importlib.import_module(name).SERVICES:
            yield service(context)


async def serve(
    store: Store,
    host: str,
    port: int,
    *,
    deployment_id: str,
    engine: Any = None,
    tls: ssl.SSLContext | None = None,
    metrics: tuple[str, int] | None = None,
    peer: socket.socket | None = None,
    drain: float = 0.0,
    pinned: bool = False,
) -> None:
    """Serve `store` on `host:port` until SIGTERM or SIGINT; prints one line when ready.

    :param engine: the pipeline engine; it is started before the first call is taken and stopped after the last.
    :param tls: what to encrypt with.
    :param peer: a bound socket on which the same is served unencrypted, for the code of pipelines on this machine.
    :param metrics: where to serve metrics and health over HTTP.
    :param drain: seconds that calls under way may take to end when the server is told to stop.
    :param pinned: access control must stay on, with the root token it has.
    :raises OSError: an address cannot be listened on.
    """
    context = Context(store, deployment_id, engine)
    context.guard.pinned = pinned
    servers = [Server(context)] if peer is None else [Server(context), Server(context)]
    context.is_alone = lambda: sum(server.calls() for server in servers) <= 1
    clock = Clock(store)
    engine_runs = False
    monitoring: Monitoring | None = None
    sweeper: asyncio.Task[None] | None = None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if metrics is not None:
            try:
                monitoring = Monitoring(context, metrics)
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{metrics[0]}:{metrics[1]}") from None
        await servers[0].start(host, port, ssl=tls)
        if peer is not None:
            await servers[1].start(sock=peer)
        sweeper = asyncio.create_task(_sweep(context))
        if engine is not None:
            await loop.run_in_executor(None, engine.start)
            engine_runs = True
        clock.start()
        where = f"[{host}]" if ":" in host else host
        version = importlib.metadata.version("howdah")
        print(f"pachd {version} listening on {where}:{port} (data in {store.path})", flush=True)
        if monitoring is not None:
            monitoring.ready = True
        await stop.wait()
        await asyncio.gather(*(server.drain(drain) for server in servers))
    finally:
        if sweeper is not None:
            sweeper.cancel()
        for server in servers:
            if server._server is not None:
                server.close()
                try:
                    await asyncio.wait_for(server.wait_closed(), STOP_TIMEOUT)
                except TimeoutError:
                    pass
        await loop.run_in_executor(None, clock.stop)
        if engine_runs:
            await loop.run_in_executor(None, engine.stop)
        if monitoring is not None:
            await loop.run_in_executor(None, monitoring.close)
        await loop.run_in_executor(None, context.close)


async def _sweep(context: Context) -> None:
    """Forget expired tokens, at once and once a day."""
    while True:
        if context.guard.active:
            try:
                await context.write(tokens.delete_expired)
            except Exception:  # a full disk: they are refused all the same
                log.exception("expired tokens could not be forgotten")
        await asyncio.sleep(_SWEEP)
