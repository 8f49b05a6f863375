"""The process of a worker that `remote` started: `python -m pachd.pps.apart FD`, where FD is a socket.

It stages datums, has the user's code work on them and collects what that leaves. It reads the store and never writes
to it: what is over it sends to pachd, which writes it down. It ends with pachd.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pachd.errors import PachError
from pachd.pps import logs
from pachd.pps.batching import BatchWorker
from pachd.pps.datums import Datum
from pachd.pps.outcome import Told
from pachd.pps.remote import Start
from pachd.pps.sandbox import Killed
from pachd.pps.worker import Setting
from pachd.proto import pps_pb2
from pachd.store import Store

_QUICK = 0.05  # seconds; what is held is to be begun in about this time
_MOST = 64


class _Pachd:
    """The connection. `ask` and `tell` may be called by any thread; answers belong to the thread of the worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tell(self, kind: str, value: object) -> None:
        with self._lock:
            self._connection.send((kind, value))

    def ask(self, kind: str, value: object) -> Any:
        """The answer; Killed once the worker is cancelled."""
        self.tell(kind, value)
        answer = self._answers.get()
        if isinstance(answer, Killed):
            raise answer
        return answer

    def listen(self, worker: BatchWorker) -> None:
        """Hand on answers and do what is told meanwhile, until pachd closes the connection."""
        try:
            while True:
                word = self._connection.recv()
                if word == "cancel":
                    self._answers.put(Killed())
                    worker.cancel()
                elif word == "restart":
                    worker.restart()
                elif word == "current":
                    self.tell("current", worker.current)
                else:
                    self._answers.put(word)
        except (EOFError, OSError):
            os._exit(1)  # the sandboxes go with this process


class _Todo:
    """What pachd has for this worker: as many datums at a time as it can soon begin."""

    def __init__(self, pachd: _Pachd) -> None:
        self._pachd = pachd
        self._held: deque[Datum] = deque()
        self._settled = True  # pachd knows that nothing is held
        self._most = 1
        self._since = time.monotonic()

    def take(self) -> Datum | None:
        if not self._held:
            now = time.monotonic()
            quick = now - self._since < _QUICK
            self._most = min(_MOST, self._most * 2) if quick else max(1, self._most // 2)
            self._held.extend(self._pachd.ask("hold", self._most))
            self._since = time.monotonic()
            self._settled = False
        return self._held.popleft() if self._held else None

    def release(self) -> None:
        if not self._settled:  # the others wait even for a worker that holds none, as long as it did not say so
            self._pachd.tell("back", list(self._held))
            self._held.clear()
            self._settled, self._most = True, 1


class _Log(logs.Log):
    def __init__(self, pachd: _Pachd) -> None:
        self._pachd = pachd

    def append(self, data: bytes) -> None:
        self._pachd.tell("log", data)

    def flush(self) -> None:
        """Nothing: whoever keeps the log does."""


def _worker(start: Start, pachd: _Pachd, store: Store) -> BatchWorker:
    out_of_memory: dict[str, str] = {}
    details = pps_pb2.PipelineInfo.Details.FromString(start.details)
    records: Callable[[int], Told] = lambda most: Told(out_of_memory, most)  # noqa: E731
    setting = Setting(
        store,
        pps_pb2.Job.FromString(start.job),
        details,
        start.commits,
        _Log(pachd),
        start.env,
        out_of_memory,
        records,
    )
    box = start.place.box(start.root, start.mounts)
    return BatchWorker(start.name, setting, box, lambda told: pachd.ask("keep", told), start.serve)


def main(fd: int) -> None:
    """Work until there is nothing left, and tell pachd how that went."""
    connection = Connection(fd)
    pachd = _Pachd(connection)
    try:
        start: Start = connection.recv()
    except EOFError:
        return
    problem: BaseException | None = None
    trace = ""
    try:
        with Store.view(start.data, guarded=False) as store:
            worker = _worker(start, pachd, store)
            threading.Thread(target=pachd.listen, args=(worker,), daemon=True).start()
            worker.work(_Todo(pachd))
    except (PachError, Killed) as error:
        problem = error
    except Exception as error:
        problem, trace = PachError(f"{type(error).__name__}: {error}"), traceback.format_exc()
    pachd.tell("end", (problem, trace))


if __name__ == "__main__":
    main(int(sys.argv[1]))
