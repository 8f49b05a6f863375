"""The worker's own gRPC service, which long-lived code asks for datum after datum: one small server per worker.

All of them live on one event loop in a thread of their own, beside the server of pachd.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pachd.errors import PachError
from pachd.proto import worker_grpc, worker_pb2

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="worker-services", daemon=True).start()
        return _loop


class Worker(worker_grpc.WorkerBase):
    """pachyderm.worker.Worker for one worker."""

    def __init__(self, next_datum: Callable[[str], list[str]], status: Callable[[], Any]) -> None:
        self._next = next_datum
        self._status = status
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="next-datum")

    async def NextDatum(self, stream: Any) -> None:
        request = await stream.recv_message()
        try:
            env = await asyncio.get_running_loop().run_in_executor(self.threads, self._next, request.error)
        except PachError as error:
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from None
        await stream.send_message(worker_pb2.NextDatumResponse(env=env))

    async def Status(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(self._status())

    async def Cancel(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(worker_pb2.CancelResponse(success=False))


def worker_service(next_datum: Callable[[str], list[str]], status: Callable[[], Any]) -> tuple[int, Callable[[], None]]:
    """Start a service on a free port of loopback; returns the port and the way to end it."""
    loop = _running_loop()
    service = Worker(next_datum, status)

    async def start() -> tuple[grpclib.server.Server, int]:
        server = grpclib.server.Server([service])
        await server.start("127.0.0.1", 0)
        inner: Any = server._server
        return server, inner.sockets[0].getsockname()[1]

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()

    async def stop() -> None:
        server.close()

    def close() -> None:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        service.threads.shutdown(wait=False)

    return port, close
