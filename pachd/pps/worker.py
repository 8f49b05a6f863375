"""One worker of a job: takes datum after datum, runs the user's code on each, keeps what came out."""

from __future__ import annotations

import functools
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pachd.pfs import filesets
from pachd.pps import meta, staging
from pachd.pps.datums import Datum
from pachd.pps.layout import Layout
from pachd.pps.lazy import Pipes
from pachd.pps.limits import OUT_OF_MEMORY
from pachd.pps.logs import DatumOutput, Log
from pachd.pps.meta import Stats
from pachd.pps.outcome import Batch, Records
from pachd.pps.sandbox import Box, Failed, Killed
from pachd.pps.todo import Datums
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Store, contents
from pachd.store.tree import Tree
from pachd.types import Commit


class Setting:
    """What all workers of a job share: the spec, the commits it reads, its log, its environment."""

    def __init__(
        self,
        store: Store,
        job: pps_pb2.Job,
        details: pps_pb2.PipelineInfo.Details,
        commits: dict[Commit, Any],
        log: Log,
        env: dict[str, str],
        out_of_memory: dict[str, str],
        records: Callable[[int], Records] | None = None,
    ) -> None:
        self.out_of_memory = out_of_memory  # reasons by datum, filled by the workers
        self.store, self.job, self.details, self.commits, self.log, self.env = store, job, details, commits, log, env
        self._records = records or functools.partial(Batch, store)
        self.encode = meta.Encoder(job, details.salt, details.transform.image).encode
        self._most = details.datum_set_spec.number  # datums recorded together; 0: as many as are there
        self.tries = max(1, details.datum_tries)
        self.timeout = details.datum_timeout.ToNanoseconds() / 1e9 if details.HasField("datum_timeout") else None

    def records(self) -> Records:
        """What a worker puts down what is over in, empty."""
        return self._records(self._most)


class Reader:
    """A snapshot with the trees of the commits a job reads; `release` it before anything long: it holds up GC."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._stack = ExitStack()
        self._snapshot: Snapshot | None = None
        self._trees: dict[Commit, Tree] = {}

    def snapshot(self) -> Snapshot:
        """The snapshot, opened when there is none."""
        if self._snapshot is None:
            self._snapshot = self._stack.enter_context(self._setting.store.read())
        return self._snapshot

    def tree(self, commit: Commit) -> Tree:
        """The files of an input commit."""
        tree = self._trees.get(commit)
        if tree is None:
            tree = self._trees[commit] = filesets.tree_of(self.snapshot(), self._setting.commits[commit])
        return tree

    def release(self) -> None:
        """Close the snapshot; the next use opens another."""
        self._snapshot = None
        self._trees = {}
        self._stack.close()


class Worker:
    """A thread's worth of work: call `work`; `cancel` stops it from any thread."""

    def __init__(self, name: str, setting: Setting, sandbox: Box, flush: Callable[[Any], None]) -> None:
        self.name = name
        self._setting = setting
        self._sandbox = sandbox
        self._flush = flush  # takes what `setting.records` gives
        self._batch = setting.records()
        self._layout = Layout(sandbox.pfs)
        self._restored = Path(sandbox.pfs).with_name("restored")  # what the code linked to, and had not been given
        self._staged = staging.Staged(0, [], [])
        self._pipes = Pipes(setting.store, [])
        self._pinned: list[list[int]] = []  # containers of inputs staged since the last flush
        self.reader = Reader(setting)
        self._restart = threading.Event()
        self._writing = threading.RLock()  # held while the batch is touched
        self.cancelled = False
        self.current: tuple[Datum, int] | None = None  # and when it began, ns

    def work(self, todo: Datums) -> None:
        """Process datums until there are none; what is done is flushed as it comes. Raises Killed when cancelled."""
        try:
            while (datum := todo.take()) is not None:
                self.process(datum)
            self.flush()
        finally:
            self._pipes.close()
            self.reader.release()
            self._batch.close()
            self._unpin(0)

    def cancel(self) -> None:
        """Stop for good."""
        self.cancelled = True
        self._sandbox.kill()

    def restart(self) -> None:
        """Break off the current datum and begin it anew."""
        self._restart.set()
        self._sandbox.interrupt()

    def flush(self) -> None:
        """Write down what is done."""
        self.reader.release()
        self._write()

    def flush_old(self) -> None:
        """Write down what has been done for a while, from another thread: a datum may take hours."""
        if self._writing.acquire(blocking=False):
            try:
                if self._batch.full():
                    self._write()
            finally:
                self._writing.release()

    def _write(self) -> None:
        with self._writing:
            if self._batch.states:
                batch, self._batch = self._batch, self._setting.records()
                self._setting.log.flush()
                try:
                    self._flush(batch)
                finally:
                    batch.close()
            self._unpin(1)

    def _unpin(self, kept: int) -> None:
        """Let the inputs of datums be collected again, the last ``kept`` datums' excepted."""
        shared = contents.shared(self._setting.store)
        while len(self._pinned) > kept:
            shared.unpin(self._pinned.pop(0))

    def process(self, datum: Datum) -> None:
        """Run one datum, with its tries, and keep the outcome."""
        setting, transform = self._setting, self._setting.details.transform
        own = staging.environment(datum, setting.job.id)
        env, env_file = {**setting.env, **own}, staging.env_file(own)
        self.current = (datum, time.time_ns())
        stats, reason, recovered = Stats(), "", False
        attempt = 0
        while attempt < setting.tries:
            attempt += 1
            self._restart.clear()
            stats = Stats()
            self.stage(datum, env_file, stats)
            output = DatumOutput(setting.log, datum, self.name)
            began = time.monotonic()
            try:
                self._run(list(transform.cmd), list(transform.stdin), env, output)
                stats.process_time = time.monotonic() - began
                self.keep(datum, env_file, stats)
                self.current = None
                return
            except Failed as problem:
                if self._restart.is_set():
                    attempt -= 1
                    continue
                reason = str(problem)
                if transform.err_cmd:
                    recovered = self._recover(env, output) or recovered
                stats.process_time = time.monotonic() - began
            setting.log.write(
                f"datum {datum.id} failed (try {attempt} of {setting.tries}): {reason}", datum, self.name, user=False
            )
        self.drop(datum, env_file, stats, reason, recovered)
        self.current = None

    def stage(self, datum: Datum, env: bytes, stats: Stats) -> None:
        """Put the datum's files where the code will look for them."""
        began = time.monotonic()
        self._pipes.close()
        if self._staged.withheld:
            shutil.rmtree(self._restored, ignore_errors=True)
        snapshot = self.reader.snapshot()
        self._staged = staging.stage(
            self._layout, datum, env, snapshot, self.reader.tree, not self._setting.details.s3_out
        )
        self._pin()
        self._pipes = Pipes(self._setting.store, self._staged.pipes)
        stats.download_bytes = self._staged.size
        stats.download_time = time.monotonic() - began

    def _pin(self) -> None:
        """Keep what a datum read until that is written down."""
        found = [container for _, entry in self._staged.files for container in contents.containers_of(entry[3])]
        contents.shared(self._setting.store).pin(found)
        self._pinned.append(found)

    def _run(self, cmd: list[str], stdin: list[str], env: dict[str, str], output: Callable[[bytes], None]) -> None:
        self.reader.release()
        data = ("\n".join(stdin) + "\n").encode() if stdin else None
        setting = self._setting
        code = self._sandbox.run(cmd, data, env, setting.details.transform.working_dir, setting.timeout, output)
        if code and code not in setting.details.transform.accept_return_code:
            raise Failed(self._sandbox.why(code))

    def _recover(self, env: dict[str, str], output: Callable[[bytes], None]) -> bool:
        transform = self._setting.details.transform
        try:
            self._run(list(transform.err_cmd), list(transform.err_stdin), env, output)
        except Failed:
            return False
        return True

    def keep(self, datum: Datum, env: bytes, stats: Stats) -> None:
        """Collect the outputs of a datum that succeeded. Raises Failed for a name that cannot be stored."""
        began = time.monotonic()
        found = self._collect()
        with self._writing:
            stats.upload_bytes = self._batch.add_outputs(datum.id, found)
            stats.upload_time = time.monotonic() - began
            self.record(datum, env, self._staged, stats, meta.PROCESSED, "")

    def _collect(self) -> list[staging.Output]:
        box, withheld = self._sandbox, self._staged.withheld

        def restore(target: str) -> list[tuple[str, str, int]]:
            if not withheld:
                return []
            return staging.restore(withheld, target, self._restored, self.reader.snapshot())

        return staging.collect(self._layout, box.tmp, self._setting.store.path, box.of_host, restore)

    def drop(self, datum: Datum, env: bytes, stats: Stats, reason: str, recovered: bool) -> None:
        """Record a datum that failed all its tries; what it put out is kept in the meta repo alone."""
        try:
            left = self._collect()
        except (Failed, OSError):  # the reason of the first failure is what counts
            left = []
        with self._writing:
            self._batch.add_outputs(datum.id, left, good=False)
        if recovered:
            self.record(datum, env, self._staged, stats, meta.RECOVERED, "")
        else:
            if reason.startswith(OUT_OF_MEMORY):
                self._setting.out_of_memory[datum.id] = reason
            self.record(datum, env, self._staged, stats, meta.FAILED, reason)

    def record(self, datum: Datum, env: bytes, staged: staging.Staged, stats: Stats, state: str, reason: str) -> None:
        """Note how a datum ended and what it read, and write everything down when it is time."""
        about = self._setting.encode(datum, stats, state, reason)
        with self._writing:
            self._batch.add_datum(datum, about, env, staged.files, stats, state)
        if self._batch.full():
            self.flush()

    def status(self) -> pps_pb2.WorkerStatus:
        """What the worker does now."""
        return status_of(self.name, self._setting.job, self.current)


def status_of(name: str, job: pps_pb2.Job, current: tuple[Datum, int] | None) -> pps_pb2.WorkerStatus:
    """What a worker tells of itself: the datum it works on, and since when (ns)."""
    found = pps_pb2.WorkerStatus(worker_id=name, job_id=job.id)
    if current is not None:
        datum, began = current
        found.datum_status.started.FromNanoseconds(began)
        found.datum_status.data.extend(pps_pb2.InputFile(path=f.path, hash=f.hash) for f in datum.files)
    return found


__all__ = ["Failed", "Killed", "Setting", "Worker"]
