"""The monitoring address: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps pachd running.

It tells numbers and names of RPCs, nothing of the data; it asks for no token.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pachd.proto import pps_pb2

if TYPE_CHECKING:
    from pachd.api.context import Context


class StoreCollector(Collector):
    """Asks the store how much there is of everything, at each scrape."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._guard = context.guard

    def describe(self) -> list[Metric]:
        """Return nothing: what there is to tell is known at a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        with self._store.read() as snapshot:
            count = {
                name: snapshot.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in ("projects", "repos", "branches", "commits")
            }
            unfinished = snapshot.db.execute("SELECT count(*) FROM commits WHERE finished IS NULL").fetchone()[0]
            jobs = snapshot.db.execute("SELECT state, count(*) FROM pps_jobs GROUP BY state").fetchall()
            pipelines = snapshot.db.execute("SELECT state, count(*) FROM pps_pipelines GROUP BY state").fetchall()
        for name, number in count.items():
            yield GaugeMetricFamily(f"pachd_{name}", f"How many {name} there are.", number)
        yield GaugeMetricFamily("pachd_commits_unfinished", "Commits that are not finished.", unfinished)
        yield _by_state("pachd_jobs", "Jobs by state.", jobs, pps_pb2.JobState)
        yield _by_state("pachd_pipelines", "Pipelines by state.", pipelines, pps_pb2.PipelineState)
        yield CounterMetricFamily("pachd_writes", "Transactions written since the start.", self._store.version)
        database = os.path.join(self._store.path, "pachd.db")
        size = os.path.getsize(database) if os.path.exists(database) else 0
        yield GaugeMetricFamily("pachd_database_bytes", "Size of the database.", size)
        room = os.statvfs(self._store.path)
        yield GaugeMetricFamily(
            "pachd_disk_free_bytes", "Room left on the disk of the data folder.", room.f_bavail * room.f_frsize
        )
        yield GaugeMetricFamily("pachd_auth_active", "Whether access control is active.", float(self._guard.active))


def _by_state(name: str, help: str, rows: list[Any], states: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=["state"])
    for state, number in rows:
        family.add_metric([states.Name(state) if state in states.values() else str(state)], number)
    return family


class Monitoring:
    """An HTTP server in a thread of its own.

    :param address: where to listen.
    :raises OSError: it cannot listen there.
    """

    def __init__(self, context: Context, address: tuple[str, int]) -> None:
        self._context = context
        self.ready = False
        registry = context.observer.registry
        registry.register(StoreCollector(context))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._server = ThreadingHTTPServer(address, self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitoring", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        monitoring = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30  # seconds that a client may take to say what it wants

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                kind, status = "text/plain; charset=utf-8", 200
                if path == "/healthz":
                    body = b"ok\n"
                elif path == "/readyz":
                    status, body = monitoring._readiness()
                elif path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    body = encode(monitoring._context.observer.registry)
                else:
                    status, body = 404, b"there are /metrics, /healthz and /readyz\n"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: it is asked every few seconds."""

        return Handler

    def _readiness(self) -> tuple[int, bytes]:
        if self._context.observer.draining:
            return 503, b"stopping\n"
        if not self.ready:
            return 503, b"starting\n"
        try:
            with self._context.store.read() as snapshot:
                snapshot.db.execute("SELECT 1").fetchone()
        except Exception as error:
            return 503, f"the store cannot be read: {type(error).__name__}\n".encode()
        return 200, b"ready\n"
