"""The worker's own gRPC service, which long-lived code asks for datum after datum: one small server per worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from pachd.api.unary import FAILED_PRECONDITION, UNIMPLEMENTED, UNKNOWN, Call, Listener
from pachd.proto import worker_pb2

_SERVICE = "/pachyderm.worker.Worker/"


class WorkerService:
    """What `pachd.pps.batching` needs of a service: the code's calls of NextDatum, one after the other.

    ``status`` gives the WorkerStatus that the code may ask for.  Only `wake` may be called from other threads.
    """

    def __init__(self, status: Callable[[], Any]) -> None:
        self._listener = Listener()
        self._status = status
        self._asking: Call | None = None
        self.port = self._listener.port

    def next(self, timeout: float | None) -> str | None:
        """Wait for NextDatum: what the code says of the datum it had ("": all went well), None after `wake`.

        Raises TimeoutError after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            call = self._listener.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if call is None:
                return None
            method = call.path.removeprefix(_SERVICE)
            if method == "NextDatum":
                try:
                    error = worker_pb2.NextDatumRequest.FromString(call.body).error if call.body else ""
                except DecodeError:
                    call.fail(UNKNOWN, "the request is no NextDatumRequest")
                    continue
                self._asking = call
                return error
            if method == "Status":
                call.answer(self._status().SerializeToString())
            elif method == "Cancel":
                call.answer(worker_pb2.CancelResponse(success=False).SerializeToString())
            else:
                call.fail(UNIMPLEMENTED, f"the worker has no {call.path}")

    def give(self, variables: list[str]) -> None:
        """Answer NextDatum: the next datum's files are there, and these are its variables."""
        call, self._asking = self._asking, None
        if call is not None:
            call.answer(worker_pb2.NextDatumResponse(env=variables).SerializeToString())

    def wake(self) -> None:
        """Have `next` return None."""
        self._listener.wake()

    def reset(self) -> None:
        """Forget the code that asked: it has ended."""
        call, self._asking = self._asking, None
        if call is not None:
            call.fail(FAILED_PRECONDITION, "the worker has ended this batch")
        self._listener.disconnect()

    def close(self) -> None:
        """End the service."""
        self.reset()
        self._listener.close()


def worker_service(status: Callable[[], Any]) -> WorkerService:
    """Start a service on a free port of loopback."""
    return WorkerService(status)
