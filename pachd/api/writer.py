"""The thread that writes, and its group commits.

Making a transaction durable is mostly waiting for the disk. Writes that come in meanwhile are carried out together in
the next transaction: each in a part of its own, so that one that fails leaves no trace and hinders none, and each
answered when all of them are durable.

A small write of a lone caller is carried out by the event loop's thread itself: waking this thread, and the loop again,
takes as long as the write, and there is nobody whom the loop could serve meanwhile.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from pachd.pfs import writing, writing_together
from pachd.store import Store, Txn
from pachd.store.store import WriterBusy

GROUP = 64  # writes in one transaction at most
SLOW = 0.005  # seconds; the loop does not wait for a disk that takes as long
_REST = 200  # writes before it tries that disk again

T = TypeVar("T")


class _Job(NamedTuple):
    fn: Callable[[Txn], Any]
    future: "asyncio.Future[Any]"


class Writer:
    """Carries out writes in the order in which they come. One per server, made on its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._unsettled = 0  # writes that this thread has not answered yet
        self._rest = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[[Txn], T], alone: bool = False) -> "asyncio.Future[T]":
        """Have `fn(txn)` run in the writer's thread; what it wrote is durable when the future has its result.

        It is undone if the future has an exception. A future that is cancelled before its turn is passed over.

        :param alone: it is small and nobody else wants anything of the loop: `fn` may be run at once, in this thread.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if alone and not self._unsettled and self._at_once(fn, future):
            return future
        self._unsettled += 1
        self._jobs.put(_Job(fn, future))
        return future

    def _at_once(self, fn: Callable[[Txn], T], future: "asyncio.Future[T]") -> bool:
        """Run `fn(txn)` in this thread; False if it was not run, as somebody else writes or the disk is slow."""
        if self._rest:
            self._rest -= 1
            return False
        started = time.monotonic()
        try:
            with writing(self._store, wait=False) as txn:
                result = fn(txn)
        except WriterBusy:
            return False
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        if time.monotonic() - started > SLOW:
            self._rest = _REST
        return True

    def close(self) -> None:
        """Wait for what is under way and for what came before."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        job = self._jobs.get()
        while job is not None:
            jobs = [job]
            try:
                while len(jobs) < GROUP and (job := self._jobs.get_nowait()) is not None:
                    jobs.append(job)
            except Empty:
                pass
            self._carry_out(jobs)
            if job is not None:
                job = self._jobs.get()

    def _carry_out(self, jobs: list[_Job]) -> None:
        count = len(jobs)
        jobs = [job for job in jobs if not job.future.cancelled()]
        try:
            if len(jobs) == 1:
                with writing(self._store) as txn:
                    results = [jobs[0].fn(txn)]
            else:
                results = writing_together(self._store, [job.fn for job in jobs])
        except BaseException as error:
            results = [error] * len(jobs)
        try:
            self._loop.call_soon_threadsafe(self._settle, count, jobs, results)
        except RuntimeError:  # the server has stopped; nobody waits
            pass

    def _settle(self, count: int, jobs: list[_Job], results: list[Any]) -> None:
        self._unsettled -= count
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
