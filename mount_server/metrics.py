"""Counters in Prometheus' text format."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mount_server.manager import Mounts


class Metrics:
    """Counts and times of what was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count one call, its time, and whether it failed."""
        start, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "ok"
        finally:
            with self._lock:
                self._calls[what, outcome] = self._calls.get((what, outcome), 0) + 1
                self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - start

    def text(self, mounts: "Mounts") -> str:
        """The page that Prometheus reads."""
        with self._lock:
            calls, seconds = dict(self._calls), dict(self._seconds)
        lines = ["# TYPE mount_server_calls_total counter"]
        lines += [f'mount_server_calls_total{{call="{c}",outcome="{o}"}} {n}' for (c, o), n in sorted(calls.items())]
        lines.append("# TYPE mount_server_call_seconds_total counter")
        lines += [f'mount_server_call_seconds_total{{call="{c}"}} {s:.6f}' for c, s in sorted(seconds.items())]
        memory, disk = mounts.cache.used()
        lines += ["# TYPE mount_server_cache_bytes gauge"]
        lines += [
            f'mount_server_cache_bytes{{where="memory"}} {memory}',
            f'mount_server_cache_bytes{{where="disk"}} {disk}',
        ]
        lines += ["# TYPE mount_server_dirty_paths gauge"]
        for mount in mounts.all():
            dirty = mount.dirty()
            name = mount.row.name.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'mount_server_dirty_paths{{mount="{name}"}} {dirty.files + dirty.deletes}')
        lines += [
            "# TYPE mount_server_pachd_reachable gauge",
            f"mount_server_pachd_reachable {int(mounts.reachable is True)}",
        ]
        return "\n".join(lines) + "\n"
