"""The gRPC server: every service on one port, UNIMPLEMENTED with a sentence for the rest."""

import asyncio
import importlib.metadata
import importlib.util
import signal
from collections.abc import Iterable
from typing import Any

import grpclib.server
from grpclib.const import Handler, Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.health.service import Health
from grpclib.protocol import H2Protocol

from pachd import wire
from pachd.api.context import Context
from pachd.api.service import unimplemented
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


class _Handlers(dict[str, Handler]):
    """All handlers by path; a path that is not there gets one that says so."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or unimplemented(path)


class Server(grpclib.server.Server):
    """A gRPC server with the services of pachd.

    :param context: the store and threads that the services share.
    :param token: if not empty, every call must carry it as `authn-token`.
    """

    def __init__(self, context: Context, token: str = "") -> None:
        super().__init__([*_services(context), Health()], config=wire.CONFIG)
        self._mapping = _Handlers(self._mapping)
        self._token = token
        if token:
            listen(self, RecvRequest, self._check_token)

    def _protocol_factory(self) -> H2Protocol:
        return wire.tune(super()._protocol_factory())

    async def _check_token(self, event: RecvRequest) -> None:
        given = event.metadata.get("authn-token", "")
        if given != self._token and not event.method_name.startswith("/grpc.health."):
            raise GRPCError(
                Status.UNAUTHENTICATED,
                "no authentication token (try logging in)" if not given else "the authentication token is not valid",
            )


def _services(context: Context) -> Iterable[Any]:
    for name in MODULES:
        if (
            importlib.util.find_spec(name) is None
        ):  # a build without that part: its RPCs say that they are not available
            continue
        for service in importlib.import_module(name).SERVICES:
            yield service(context)


async def serve(store: Store, host: str, port: int, *, deployment_id: str, token: str = "", engine: Any = None) -> None:
    """Serve `store` on `host:port` until SIGTERM or SIGINT; prints one line when ready.

    :param engine: the pipeline engine; it is started before the first call is taken and stopped after the last.
    :raises OSError: the address cannot be listened on.
    """
    context = Context(store, deployment_id, engine)
    server = Server(context, token)
    clock = Clock(store)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start(host, port)
        if engine is not None:
            await loop.run_in_executor(None, engine.start)
        clock.start()
        where = f"[{host}]" if ":" in host else host
        version = importlib.metadata.version("howdah")
        print(f"pachd {version} listening on {where}:{port} (data in {store.path})", flush=True)
        await stop.wait()
    finally:
        if server._server is not None:
            server.close()
            try:
                await asyncio.wait_for(server.wait_closed(), STOP_TIMEOUT)
            except TimeoutError:
                pass
        await loop.run_in_executor(None, clock.stop)
        if engine is not None:
            await loop.run_in_executor(None, engine.stop)
        await loop.run_in_executor(None, context.close)
