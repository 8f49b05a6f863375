"""The worker's own gRPC service, which long-lived code asks for datum after datum: one small server per worker.

It runs on grpcio, unlike everything else here: a datum of a batch costs one unary call made and answered by one client
at a time, and that is the case in which grpcio's C core is several times as fast as HTTP/2 in Python.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty

from pachd.errors import PachError
from pachd.proto import worker_pb2

_THREADS = 3  # NextDatum blocks one; Status must be answered beside it


def _handlers(next_datum: Callable[[str], list[str]], status: Callable[[], Any]) -> Any:
    def answer_next(request: worker_pb2.NextDatumRequest, context: Any) -> worker_pb2.NextDatumResponse:
        try:
            return worker_pb2.NextDatumResponse(env=next_datum(request.error))
        except PachError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            raise

    def answer_status(request: Empty, context: Any) -> Any:
        return status()

    def answer_cancel(request: worker_pb2.CancelRequest, context: Any) -> worker_pb2.CancelResponse:
        return worker_pb2.CancelResponse(success=False)

    methods: dict[str, tuple[Any, Any]] = {
        "NextDatum": (answer_next, worker_pb2.NextDatumRequest),
        "Status": (answer_status, Empty),
        "Cancel": (answer_cancel, worker_pb2.CancelRequest),
    }
    return grpc.method_handlers_generic_handler(
        "pachyderm.worker.Worker",
        {
            name: grpc.unary_unary_rpc_method_handler(fn, kind.FromString, lambda reply: reply.SerializeToString())
            for name, (fn, kind) in methods.items()
        },
    )


def worker_service(next_datum: Callable[[str], list[str]], status: Callable[[], Any]) -> tuple[int, Callable[[], None]]:
    """Start a service on a free port of loopback; returns the port and the way to end it."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="next-datum")
    server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_handlers(next_datum, status),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def close() -> None:
        server.stop(None)
        threads.shutdown(wait=False)

    return port, close
