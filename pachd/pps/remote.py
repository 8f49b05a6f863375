"""A worker in a process of its own, as pachd sees it: it hands out datums and writes down what comes back.

Workers that are threads of pachd share one interpreter: where datums are small, two of them get no more done than one.
The other side is `apart`.
"""

from __future__ import annotations

import logging
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from pachd.pps.batching import Serve
from pachd.pps.datums import Datum
from pachd.pps.executor import Place
from pachd.pps.outcome import Batch, Told
from pachd.pps.sandbox import Killed, NotReady
from pachd.pps.todo import Todo
from pachd.pps.worker import Setting, status_of
from pachd.proto import pps_pb2
from pachd.types import Commit

log = logging.getLogger(__name__)
_ANSWER = 1.0  # seconds that a question about the state of the worker may take
_END = 10.0  # seconds


class Start(NamedTuple):
    """What the process has to know; ``job`` and ``details`` are encoded messages."""

    name: str
    data: str
    job: bytes
    details: bytes
    commits: dict[Commit, Any]
    env: dict[str, str]
    place: Place
    root: Path
    mounts: list[tuple[str, str]]
    serve: Serve | None


class RemoteWorker:
    """One worker of a job, as `Worker`: call `work`; `cancel` stops it from any thread."""

    def __init__(self, start: Start, setting: Setting, flush: Callable[[Batch], None]) -> None:
        self.name = start.name
        self._start, self._setting, self._flush = start, setting, flush
        self._here, self._there = (Connection(end.detach()) for end in socket.socketpair())
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[tuple[Datum, int] | None] = queue.SimpleQueue()
        self._held = 0
        self._cancelled = False

    def work(self, todo: Todo) -> None:
        """Have datums processed until there are none. Raises what `Worker.work` does, NotReady if the process died."""
        flags = ["-E"] if sys.flags.ignore_environment else []  # the packages must be those of this process
        command = [sys.executable, *flags, "-m", "pachd.pps.apart", str(self._there.fileno())]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[self._there.fileno()], start_new_session=True
            )
        finally:
            self._there.close()
        try:
            if self._cancelled:
                raise Killed
            self._send(self._start)
            problem = self._converse(todo)
        except (EOFError, ConnectionError):
            code = process.wait()
            raise NotReady(f"the process of worker {self.name} ended with code {code}", retry=1.0) from None
        finally:
            todo.settle(self._held)
            with self._lock:
                self._here.close()  # which ends the process, if nothing else has
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if problem is not None:
            raise problem

    def _converse(self, todo: Todo) -> BaseException | None:
        """Do what the process asks for until it ends; what it ended with."""
        while True:
            kind, value = self._here.recv()
            if kind == "hold":
                todo.settle(self._held)
                self._held = 0
                found = todo.hold(value)
                self._held = len(found)
                self._send(found)
            elif kind == "back":
                todo.settle(self._held, value)
                self._held = 0
            elif kind == "keep":
                self._keep(value)
                self._send(None)
            elif kind == "log":
                self._setting.log.append(value)
            elif kind == "current":
                self._answers.put(value)
            else:
                problem, trace = value
                if trace:
                    log.error("worker %s: %s", self.name, trace)
                return problem  # type: ignore[no-any-return]

    def _keep(self, told: Told) -> None:
        self._setting.log.flush()
        self._setting.out_of_memory.update(told.out_of_memory)
        batch = Batch(self._setting.store)
        try:
            batch.take(told)
            self._flush(batch)
        finally:
            batch.close()

    def _send(self, value: object) -> None:
        with self._lock:
            self._here.send(value)

    def _tell(self, word: str) -> bool:
        """Say something that the process need not answer; False when it is over."""
        try:
            self._send(word)
        except OSError:  # closed, or broken
            return False
        return True

    def cancel(self) -> None:
        """Stop for good."""
        self._cancelled = True
        self._tell("cancel")

    def restart(self) -> None:
        """Break off the current datum and begin it anew."""
        self._tell("restart")

    @property
    def current(self) -> tuple[Datum, int] | None:
        """The datum that is worked on, and when it began (ns)."""
        with self._asking:
            while not self._answers.empty():
                self._answers.get()
            if not self._tell("current"):
                return None
            try:
                return self._answers.get(timeout=_ANSWER)
            except queue.Empty:
                return None

    def flush_old(self) -> None:
        """Nothing: the process sends what is done."""

    def status(self) -> pps_pb2.WorkerStatus:
        """What the worker does now."""
        return status_of(self.name, self._setting.job, self.current)
