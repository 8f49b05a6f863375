"""Datum batching: the user's code is started once and asks for datum after datum.

The code calls the worker's NextDatum on `PPS_WORKER_GRPC_PORT`; it says how the datum before went and returns when
the next one's files are in `/pfs`.  After the last datum the call does not return: the worker ends the code.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from pachd.errors import FailedPrecondition
from pachd.pps import sandbox, staging
from pachd.pps.datums import Datum
from pachd.pps.logs import DatumOutput
from pachd.pps.meta import Stats
from pachd.pps.sandbox import Failed, Killed
from pachd.pps.worker import Batch, Setting, Worker

# serve(next_datum, status) -> (port, close) starts a gRPC service; next_datum(error) blocks and gives the variables
Serve = Callable[[Callable[[str], list[str]], Callable[[], Any]], tuple[int, Callable[[], None]]]


_SHORT = 0.1  # seconds; a datum that takes longer is no reason to hold on to a snapshot


class BatchWorker(Worker):
    """A worker whose code stays alive over many datums."""

    def __init__(
        self, name: str, setting: Setting, box: sandbox.Sandbox, flush: Callable[[Batch], None], serve: Serve | None
    ) -> None:
        super().__init__(name, setting, box, flush)
        self._serve = serve
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # the code's word on its datum; None: it ended
        self._given: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._output: DatumOutput | None = None
        self._waiting = False  # the code is inside NextDatum
        self._env: dict[str, str] = {}
        self._unrecorded: list[tuple[Datum, dict[str, str], Stats, str, str]] = []

    def record(self, datum: Datum, own: dict[str, str], stats: Stats, state: str, reason: str) -> None:
        """Put off what the code need not wait for until it works on its next datum."""
        self._unrecorded.append((datum, own, stats, state, reason))

    def _settle(self) -> None:
        while self._unrecorded:
            super().record(*self._unrecorded.pop())

    def flush(self) -> None:
        self._settle()
        super().flush()

    def work(self, todo: queue.SimpleQueue[Datum]) -> None:
        if self._serve is None:
            raise FailedPrecondition("this pachd runs without a worker service: datum_batching is not possible")
        port, close = self._serve(self._next, self.status)
        self._env = {**self._setting.env, "PPS_WORKER_GRPC_PORT": str(port)}
        try:
            super().work(todo)
        finally:
            self._end_code()
            close()

    def _next(self, error: str) -> list[str]:
        """NextDatum, in a thread of the service."""
        self._asked.put(error)
        variables = self._given.get()
        if variables is None:
            raise FailedPrecondition("the worker has ended this batch")
        return variables

    def process(self, datum: Datum) -> None:
        setting = self._setting
        own = staging.environment(datum, setting.job.id)
        self.current = (datum, time.time_ns())
        transform = setting.details.transform
        stats, reason, recovered = Stats(), "", False
        attempt = 0
        while attempt < setting.tries:
            attempt += 1
            self._restart.clear()
            stats = Stats()
            self.stage(datum, own, stats)
            self._output = DatumOutput(setting.log, datum, self.name)
            began = time.monotonic()
            try:
                self._one(own)
                stats.process_time = time.monotonic() - began
                self.keep(datum, own, stats)
                self.current = None
                return
            except Failed as problem:
                stats.process_time = time.monotonic() - began
                reason = str(problem)
                if self._restart.is_set():
                    attempt -= 1
                    continue
                if transform.err_cmd:
                    recovered = self._recover({**self._env, **own}, self._output) or recovered
            setting.log.write(
                f"datum {datum.id} failed (try {attempt} of {setting.tries}): {reason}", datum, self.name, user=False
            )
        self.drop(datum, own, stats, reason, recovered)
        self.current = None

    def _one(self, own: dict[str, str]) -> None:
        """Let the code work on what is in `/pfs` until it asks for the next datum."""
        timeout = self._setting.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._process is None:
            self._start_code()
        if not self._waiting:
            self._answer(deadline, asking=True)
        self._waiting = False
        self._given.put([f"{name}={value}" for name, value in own.items()])
        self._settle()
        error = self._answer(deadline, asking=False)
        if error:
            raise Failed(error)

    def _answer(self, deadline: float | None, asking: bool) -> str:
        """Wait for the code's next call; its word on the datum."""
        try:
            error = self._wait(deadline)
        except queue.Empty:
            self._end_code()
            raise Failed(f"datum timed out after {self._setting.timeout:g} seconds") from None
        if error is None:
            code = self._process.wait() if self._process else 0
            self._process = None
            if self.cancelled:
                raise Killed
            what = "before it asked for a datum" if asking else "while it worked on the datum"
            raise Failed(f"exit status {code}" if code else f"the code ended {what}")
        self._waiting = True
        return error

    def _wait(self, deadline: float | None) -> str | None:
        try:
            return self._asked.get(timeout=_SHORT)
        except queue.Empty:
            self.reader.release()
        return self._asked.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _start_code(self) -> None:
        transform = self._setting.details.transform
        data = ("\n".join(transform.stdin) + "\n").encode() if transform.stdin else None
        self._waiting = False
        while not self._asked.empty():
            self._asked.get()
        process = self._sandbox.start(list(transform.cmd), data, self._env, transform.working_dir)
        self._process = process

        def read_output() -> None:
            sandbox.pump(process, lambda line: self._output(line) if self._output else None, None)
            process.wait()
            if process.stdout:
                process.stdout.close()
            if self._process is process:
                self._asked.put(None)

        threading.Thread(target=read_output, daemon=True).start()

    def _end_code(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            sandbox.stop(process)
            process.wait()
        if self._waiting:
            self._waiting = False
            self._given.put(None)
