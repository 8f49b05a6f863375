"""What all handlers share: the store, the threads that run the core, and the news that something was written."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pachd.api.guard import Guard, sign
from pachd.api.observe import STOPPING, Observer
from pachd.api.threads import in_own_thread
from pachd.api.writer import Writer
from pachd.errors import NotYet, Unavailable
from pachd.pfs import filesets
from pachd.store import Snapshot, Store, Txn

READERS = 4  # threads; the interpreter's lock makes more of them useless
AHEAD = 3  # times that trees are made ahead of one write before it makes them itself, while all others wait
INGESTERS = 2  # threads that take in the bytes of ModifyFile streams

T = TypeVar("T")


class Context:
    """One per server, made on its event loop.

    :param store: the opened data folder.
    :param deployment_id: constant over the life of the data folder; clients compare it with their configuration.
    :param engine: the pipeline engine, or None where pachd runs without one.
    """

    def __init__(self, store: Store, deployment_id: str, engine: Any = None) -> None:
        self.store = store
        self.deployment_id = deployment_id
        self.engine = engine
        self.guard = Guard(store)
        self.observer = Observer()
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._writer = Writer(store)
        self._ingest = ThreadPoolExecutor(INGESTERS, thread_name_prefix="ingest")
        self._waiting: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()  # go on without their caller
        self._unsubscribe = store.subscribe(self._written)
        self.is_alone: Callable[[], bool] = lambda: False  # whether one call is all that is under way

    def drain(self) -> None:
        """Let no more calls in, and end those that wait for something to be written."""
        self.observer.draining = True
        self._wake()

    def close(self) -> None:
        """Wait for what the threads still do, then let go of the store."""
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        for pool in (self._readers, self._ingest):
            pool.shutdown(wait=True, cancel_futures=True)
        self._writer.close()

    async def read(self, fn: Callable[[Snapshot], T]) -> T:
        """Run `fn(snapshot)` in a reader thread and return its result."""

        def run() -> T:
            with self.store.read() as snapshot:
                return fn(snapshot)

        return await self._loop.run_in_executor(self._readers, run)

    async def write(self, fn: Callable[[Txn], T], small: bool = False) -> T:
        """Run `fn(txn)` in the writer thread; what it wrote is durable when this returns, or undone if it raised.

        `small`: it is soon done, and may keep the loop from other calls if there are none.

        If it would finish a commit of many changes, the trees are made first, while others write, and it is run again.
        """
        state = sign()

        def step(txn: Txn) -> T:
            txn.state.update(state)
            filesets.may_retry(txn)
            return fn(txn)

        def last_step(txn: Txn) -> T:
            txn.state.update(state)
            return fn(txn)

        async def again(large: filesets.Large) -> T:
            for _ in range(AHEAD):
                made = await in_own_thread(large.make)
                try:
                    return await self._writer.submit(step)
                except filesets.Large as other:  # its base has changed meanwhile
                    large = other
                finally:
                    made.close()
            return await self._writer.submit(last_step)

        try:
            return await self._writer.submit(step, alone=small and self.is_alone())
        except filesets.Large as large:
            if not large.goes_on:
                return await again(large)
            task = asyncio.ensure_future(again(large))
            self._tasks.add(task)
            task.add_done_callback(self._is_done)
            return await asyncio.shield(task)

    def _is_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was raised, or nobody is left to care

    async def ingest(self, fn: Callable[[], T]) -> T:
        """Run `fn()`, which stores bytes outside of any transaction, in a thread of its own kind."""
        return await self._loop.run_in_executor(self._ingest, fn)

    async def pull(self, iterator: Iterator[T]) -> T | None:
        """Return the next item of an iterator of the core, computed in a reader thread; None at its end."""
        return await self._loop.run_in_executor(self._readers, next, iterator, None)

    def finish(self, iterator: Iterator[Any]) -> None:
        """Close a generator of the core in a reader thread, after whatever it still does there."""

        def close() -> None:
            closing = getattr(iterator, "close", None)
            if closing is not None:
                try:
                    closing()
                except ValueError:  # it is running in another reader thread: its own call to next() was not awaited
                    self._readers.submit(close)

        try:
            self._readers.submit(close)
        except RuntimeError:  # the server is stopping, the pool is gone
            close()

    @property
    def version(self) -> int:
        """Grows with every committed write."""
        return self.store.version

    async def newer(self, version: int) -> None:
        """Wait until something was written after `version`. Take the version before reading, then nothing is missed.

        :raises Unavailable: the server stops.
        """
        while self.store.version <= version:
            if self.observer.draining:
                raise Unavailable(STOPPING)
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.add(waiter)
            if self.store.version > version:
                self._waiting.discard(waiter)
                return
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt()` gives; as long as it raises NotYet, try again whenever something was written."""
        while True:
            version = self.version
            try:
                return await attempt()
            except NotYet:
                await self.newer(version)

    def _written(self) -> None:
        # in the writer's thread
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
