"""The thread that writes, and its group commits.

Making a transaction durable is mostly waiting for the disk. Writes that come in meanwhile are carried out together in
the next transaction: each in a part of its own, so that one that fails leaves no trace and hinders none, and each
answered when all of them are durable.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from pachd.pfs import writing, writing_together
from pachd.store import Store, Txn

GROUP = 64  # writes in one transaction at most

T = TypeVar("T")


class _Job(NamedTuple):
    fn: Callable[[Txn], Any]
    future: "asyncio.Future[Any]"


class Writer:
    """Carries out writes in the order in which they come. One per server, made on its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[[Txn], T]) -> "asyncio.Future[T]":
        """Have `fn(txn)` run in the writer's thread; what it wrote is durable when the future has its result.

        It is undone if the future has an exception. A future that is cancelled before its turn is passed over.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(fn, future))
        return future

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
            self._loop.call_soon_threadsafe(_settle, jobs, results)
        except RuntimeError:  # the server has stopped; nobody waits
            pass


def _settle(jobs: list[_Job], results: list[Any]) -> None:
    for job, result in zip(jobs, results, strict=True):
        if job.future.done():
            continue
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
