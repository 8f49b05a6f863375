"""What is measured and logged of every call: which RPC, how it ended, how long it took, who called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from pachd.api.service import Call

log = structlog.get_logger("pachd.rpc")
_STDLIB = logging.getLogger("pachd.rpc")
KEPT = 1000  # calls
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)  # buckets of the histogram
STOPPING = "pachd is stopping: try again when it is back"


class Observer:
    """Counts the calls of one server. `running` are under way now; while `draining`, no new one is let in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = 0
        self.draining = False
        self.recent: deque[tuple[float, str, str, float, str]] = deque(maxlen=KEPT)
        self._calls = Counter("pachd_rpcs", "Calls that have ended.", ["rpc", "code"], registry=self.registry)
        self._seconds = Histogram(
            "pachd_rpc_seconds", "How long calls took.", ["rpc"], registry=self.registry, buckets=SECONDS
        )
        gauge = Gauge("pachd_rpcs_running", "Calls that are under way.", registry=self.registry)
        gauge.set_function(lambda: self.running)
        self._counters: dict[tuple[str, str], Any] = {}  # looking a labelled one up costs more than counting
        self._histograms: dict[str, Any] = {}

    def watch(self, call: Call) -> _Watch:
        """Return a context manager around the answering of a call.

        :raises GRPCError: UNAVAILABLE, on entering it while the server stops.
        """
        return _Watch(self, call)

    def ended(self, method: str, code: str, seconds: float, principal: str) -> None:
        """Count a call."""
        counter = self._counters.get((method, code))
        if counter is None:
            counter = self._counters[method, code] = self._calls.labels(method, code)
        histogram = self._histograms.get(method)
        if histogram is None:
            histogram = self._histograms[method] = self._seconds.labels(method)
        counter.inc()
        histogram.observe(seconds)
        self.recent.append((time.time(), method, code, seconds, principal))
        if _STDLIB.isEnabledFor(logging.INFO):
            known = {"principal": principal} if principal else {}
            log.info("call", rpc=method, code=code, ms=round(seconds * 1000, 3), **known)


class _Watch:
    __slots__ = ("_call", "_observer", "_started")

    def __init__(self, observer: Observer, call: Call) -> None:
        self._observer, self._call = observer, call

    def __enter__(self) -> None:
        if self._observer.draining:
            raise GRPCError(Status.UNAVAILABLE, STOPPING)
        self._observer.running += 1
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        observer, call = self._observer, self._call
        observer.running -= 1
        seconds = time.perf_counter() - self._started
        observer.ended(call.method, "OK" if error is None else code_of(error), seconds, call.principal)


def code_of(error: BaseException) -> str:
    """Return the name of the gRPC status in which a call ended."""
    if isinstance(error, GRPCError):
        return error.status.name
    if isinstance(error, TimeoutError):
        return Status.DEADLINE_EXCEEDED.name
    if isinstance(error, asyncio.CancelledError | StreamTerminatedError):
        return Status.CANCELLED.name
    return Status.UNKNOWN.name
