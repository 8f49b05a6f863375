"""Datum batching: the user's code is started once and asks for datum after datum.

The code calls the worker's NextDatum on `PPS_WORKER_GRPC_PORT`; it says how the datum before went and returns when
the next one's files are in `/pfs`.  After the last datum the call does not return: the worker ends the code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from pachd.errors import FailedPrecondition
from pachd.pps import sandbox, staging
from pachd.pps.datums import Datum
from pachd.pps.logs import DatumOutput
from pachd.pps.meta import Stats
from pachd.pps.sandbox import Failed, Killed
from pachd.pps.todo import Datums, Todo
from pachd.pps.worker import Setting, Worker


class Calls(Protocol):
    """The gRPC service of one worker: the code's calls of NextDatum, one after the other.

    Only `wake` may be called from other threads.
    """

    port: int

    def next(self, timeout: float | None) -> str | None:
        """Wait for a call: the code's word on its datum ("": good), None after `wake`. Raises TimeoutError."""

    def give(self, variables: list[str]) -> None:
        """Answer the call with the variables of the next datum."""

    def wake(self) -> None:
        """Have `next` return None."""

    def reset(self) -> None:
        """Refuse the call and drop the connection: the code has ended."""

    def close(self) -> None:
        """End the service."""


Serve = Callable[[Callable[[], Any]], Calls]  # starts a service; the argument gives what Status answers

_SHORT = 0.1  # seconds; a datum that takes longer is no reason to hold on to a snapshot, or to other datums


class BatchWorker(Worker):
    """A worker whose code stays alive over many datums."""

    def __init__(
        self, name: str, setting: Setting, box: sandbox.Box, flush: Callable[[Any], None], serve: Serve | None
    ) -> None:
        super().__init__(name, setting, box, flush)
        self._serve = serve
        self._calls: Calls | None = None
        self._process: sandbox.Process | None = None
        self._output: DatumOutput | None = None
        self._waiting = False  # the code is inside NextDatum
        self._env: dict[str, str] = {}
        self._todo: Datums = Todo(())

    def flush_old(self) -> None:
        """Nothing: it is done while the code is waited for."""

    def work(self, todo: Datums) -> None:
        if self._serve is None:
            raise FailedPrecondition("this pachd runs without a worker service: datum_batching is not possible")
        self._todo = todo
        self._calls = self._serve(self.status)
        self._env = {**self._setting.env, "PPS_WORKER_GRPC_PORT": str(self._calls.port)}
        try:
            super().work(todo)
        finally:
            self._end_code()
            self._calls.close()

    def process(self, datum: Datum) -> None:
        setting = self._setting
        own = staging.environment(datum, setting.job.id)
        env_file = staging.env_file(own)
        self.current = (datum, time.time_ns())
        transform = setting.details.transform
        stats, reason, recovered = Stats(), "", False
        attempt = 0
        while attempt < setting.tries:
            attempt += 1
            self._restart.clear()
            stats = Stats()
            self.stage(datum, env_file, stats)
            self._output = DatumOutput(setting.log, datum, self.name)
            began = time.monotonic()
            try:
                self._one(own)
                stats.process_time = time.monotonic() - began
                self.keep(datum, env_file, stats)
                self.current = None
                return
            except Failed as problem:
                stats.process_time = time.monotonic() - began
                reason = str(problem)
                if self._restart.is_set():
                    attempt -= 1
                    continue
                if transform.err_cmd:
                    self._settle()  # it may take as long as it likes
                    recovered = self._recover({**self._env, **own}, self._output) or recovered
            setting.log.write(
                f"datum {datum.id} failed (try {attempt} of {setting.tries}): {reason}", datum, self.name, user=False
            )
        self.drop(datum, env_file, stats, reason, recovered)
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
        assert self._calls is not None
        self._calls.give([f"{name}={value}" for name, value in own.items()])
        error = self._answer(deadline, asking=False)
        if error:
            raise Failed(error)

    def _answer(self, deadline: float | None, asking: bool) -> str:
        """Wait for the code's next call; its word on the datum."""
        try:
            error = self._wait(deadline)
        except TimeoutError:
            self._end_code()
            raise Failed(f"datum timed out after {self._setting.timeout:g} seconds") from None
        if error is None:
            code = self._process.wait() if self._process else 0
            self._process = None
            self._end_code()
            if self.cancelled:
                raise Killed
            what = "before it asked for a datum" if asking else "while it worked on the datum"
            raise Failed(self._sandbox.why(code) if code else f"the code ended {what}")
        self._waiting = True
        return error

    def _wait(self, deadline: float | None) -> str | None:
        assert self._calls is not None
        try:
            return self._calls.next(_SHORT if deadline is None else min(_SHORT, max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            self._settle()
        while True:
            error = self._calls.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if error is not None or self._process is None or self._process.poll() is not None:
                return error  # else it was an earlier process that ended

    def _settle(self) -> None:
        """Leave nothing waiting for a datum that takes its time."""
        self._todo.release()
        self.flush()

    def _start_code(self) -> None:
        transform = self._setting.details.transform
        data = ("\n".join(transform.stdin) + "\n").encode() if transform.stdin else None
        self._waiting = False
        process = self._sandbox.start(list(transform.cmd), data, self._env, transform.working_dir)
        self._process = process
        assert self._calls is not None
        ended = self._calls.wake

        def read_output() -> None:
            sandbox.pump(process, lambda line: self._output(line) if self._output else None, None)
            process.wait()
            if process.stdout:
                process.stdout.close()
            if self._process is process:
                ended()

        threading.Thread(target=read_output, daemon=True).start()

    def _end_code(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._sandbox.stop(process)
            process.wait()
        self._waiting = False
        if self._calls is not None:
            self._calls.reset()
