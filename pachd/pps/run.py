"""One run of a job, in a thread of its own: plan, workers, the end."""

from __future__ import annotations

import functools
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pachd.errors import PachError, PermissionDenied
from pachd.pfs import filesets, modify, read, refs, writing
from pachd.pps import batching, egress, jobs, logs, meta, pipelines, plan, sandbox, secrets
from pachd.pps.datums import Datum
from pachd.pps.executor import Executor, Place
from pachd.pps.outcome import Batch
from pachd.pps.remote import RemoteWorker, Start
from pachd.pps.resident import credentials
from pachd.pps.sandbox import NotReady
from pachd.pps.todo import Todo
from pachd.pps.worker import Killed, Setting, Worker
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Store, Txn, system
from pachd.types import Commit, Repo

log = logging.getLogger(__name__)
_MANY = 1_000  # datums of a batch; for fewer it takes longer to start processes than they spare
_PLANNED = ""  # the row of pps_datums that says that the outputs of datums that are gone were deleted


class Run:
    """The run of one job. `start` it, `cancel` it, `join` it; it ends by itself."""

    def __init__(
        self,
        store: Store,
        pk: int,
        work: Path,
        executor: Executor,
        serve: batching.Serve | None,
        ended: Callable[[], object],
    ) -> None:
        self.store, self.pk = store, pk
        self.job = pps_pb2.Job()
        self._work, self._executor, self._serve, self._ended = work, executor, serve, ended
        self.retry = 0.0  # seconds until the job should be tried again; 0: it has ended
        self._out_of_memory: dict[str, str] = {}  # datums that failed for it, and what is told about them
        self._cancelled = threading.Event()
        self._workers: Sequence[Worker | RemoteWorker] = []
        self._problems: list[BaseException] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name=f"job-{pk}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Stop the workers; what they have not flushed is lost. The job's row is not touched."""
        self._cancelled.set()
        with self._lock:
            for worker in self._workers:
                worker.cancel()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def status(self) -> list[pps_pb2.WorkerStatus]:
        """What the workers do now."""
        with self._lock:
            return [worker.status() for worker in self._workers]

    def restart(self, filters: list[str]) -> bool:
        """Begin the datums anew that run now and match all filters (path or hex hash); False if there is none."""
        found = False
        with self._lock:
            for worker in self._workers:
                current = worker.current
                if current and all(any(f in (x.path, x.hash.hex()) for x in current[0].files) for f in filters):
                    worker.restart()
                    found = True
        return found

    def _main(self) -> None:
        try:
            self._run()
        except Killed:
            pass
        except NotReady as problem:
            self._postpone(problem)
        except Exception as problem:
            known = isinstance(problem, PachError)
            reason = str(problem) if known else f"{type(problem).__name__}: {problem}"
            if known and self._is_over():
                log.info("job %s ends, as it was deleted or stopped meanwhile: %s", self.job.id, reason)
                return
            log.error("job %s failed: %s%s", self.job.id, reason, "" if known else "\n" + traceback.format_exc())
            try:
                self._end(jobs.FAILURE, reason, problem)
            except Exception:  # the disk may be full: the job stays unfinished and is tried again later
                log.exception("cannot record the failure of job %s", self.job.id)
        finally:
            self._ended()

    def _is_over(self) -> bool:
        with self.store.read() as snapshot:
            row = jobs.find_pk(snapshot, self.pk)
            return row is None or row["state"] in jobs.TERMINAL

    def _run(self) -> None:
        with writing(self.store) as txn:
            row = jobs.find_pk(txn, self.pk)
            if row is None or row["state"] in jobs.TERMINAL:
                return
            self.job = jobs.message(row)
            if row["state"] != jobs.RUNNING:
                txn.db.execute("UPDATE pps_jobs SET state=?, started=? WHERE pk=?", (jobs.RUNNING, txn.now, self.pk))
        info = pps_pb2.PipelineInfo.FromString(row["info"])
        _check_supported(info)
        with self.store.read() as snapshot:
            todo = plan.make(snapshot, row)
            done = {r["datum"] for r in snapshot.db.execute("SELECT datum FROM pps_datums WHERE job=?", (self.pk,))}
            rows = {Commit(r.repo, r.id): r for r in jobs.input_commits(snapshot, info, row["id"]).values()}
        self._begin(row, todo, _PLANNED in done)
        left = [datum for datum in todo.todo if datum.id not in done]
        if left:
            self._work_on(left, info, row, rows)
        if info.details.HasField("egress"):
            self._egress(info)
        self._finish(todo)

    def _begin(self, row: Any, todo: plan.Plan, deleted: bool) -> None:
        """Note how much there is to do and delete the outputs of datums that run again or are gone: once per job."""
        with modify.Modification(self.store) as out, modify.Modification(self.store) as about:
            self._begin_with(out, about, row, todo, deleted)

    def _begin_with(
        self, out: modify.Modification, about: modify.Modification, row: Any, todo: plan.Plan, deleted: bool
    ) -> None:
        if not deleted and todo.base is not None and todo.gone:
            with self.store.read() as snapshot:
                view = read.View.of(snapshot, todo.base.meta)
                for datum in todo.gone:
                    _delete_datum(view, datum, out, about)
        with writing(self.store) as txn:
            self._check(txn)
            if not deleted:
                if todo.gone:
                    out.apply(txn, self._row(txn, "user"))
                    about.apply(txn, self._row(txn, "meta"))
                txn.db.execute("INSERT INTO pps_datums VALUES (?,?,'')", (self.pk, _PLANNED))
            txn.db.execute("UPDATE pps_jobs SET total=?, skipped=? WHERE pk=?", (todo.total, todo.skipped, self.pk))

    def _row(self, txn: Snapshot, kind: str) -> Any:
        pipeline = self.job.pipeline
        return refs.resolve_commit(txn, (Repo(pipeline.project.name, pipeline.name, kind), self.job.id))

    def _check(self, txn: Txn) -> None:
        """Raise Killed when the job was ended by somebody else."""
        found = txn.db.execute("SELECT state FROM pps_jobs WHERE pk=?", (self.pk,)).fetchone()
        if found is None or found["state"] in jobs.TERMINAL or self._cancelled.is_set():
            raise Killed

    def _work_on(self, left: list[Datum], info: pps_pb2.PipelineInfo, row: Any, rows: dict[Commit, Any]) -> None:
        place = self._executor.place(info, row["id"], self._secret)
        env = {
            **place.environment,
            **info.details.transform.env,
            "PPS_PIPELINE_NAME": row["name"],
            "PPS_PROJECT_NAME": row["project"],
            "PPS_SPEC_COMMIT": info.spec_commit.id or row["id"],
        }
        env |= credentials(self.store, info.pipeline)
        try:
            with self.store.read() as snapshot:
                mounts = secrets.provide(snapshot, info, env, self._work)
        except PachError as problem:  # a secret that was there is gone: on a cluster no worker would start
            raise NotReady(str(problem), retry=3.0) from None
        self._recovered(row["pipeline"])
        job_log = logs.JobLog(logs.path(self.store.path, row["pipeline"], row["id"]))
        setting = Setting(self.store, self.job, info.details, rows, job_log, env, self._out_of_memory)
        count = min(max(1, info.details.parallelism_spec.constant), len(left))
        waiting = Todo(left, count)
        boxes = [place.box(self._work / f"{self.pk}-{i}", mounts) for i in range(count)]
        if place.note:
            job_log.write(place.note, None, "pachd", user=False)
        timer = None
        if info.details.HasField("job_timeout"):
            taken = system.now_ns() - (row["started"] or system.now_ns())  # before pachd was started again
            left_ns = max(0, info.details.job_timeout.ToNanoseconds() - taken)
            timer = threading.Timer(left_ns / 1e9, self._time_out)
            timer.daemon = True
            timer.start()
        try:
            boxes[0].check()
            batch = info.details.transform.datum_batching
            apart = batch and place.portable and len(left) >= _MANY and 1 < count <= 2 * (os.cpu_count() or 1)
            with self._lock:
                if apart:
                    self._workers = [self._remote(i, setting, place, box, mounts) for i, box in enumerate(boxes)]
                else:
                    self._workers = [self._worker(batch, i, setting, box) for i, box in enumerate(boxes)]
                if self._cancelled.is_set():
                    raise Killed
            threads = [
                threading.Thread(target=self._thread_of, args=(w, waiting), daemon=True) for w in self._workers[1:]
            ]
            for thread in threads:
                thread.start()
            over = threading.Event()
            flusher = threading.Thread(target=self._flush_old, args=(over,), name="flush", daemon=True)
            flusher.start()
            self._thread_of(self._workers[0], waiting)
            for thread in threads:
                thread.join()
            over.set()
            flusher.join()
            if self._problems:
                raise self._problems[0]
            done = f"the code of the pipeline has run on {len(left)} datums"
            job_log.write(done, None, self._workers[0].name, user=False)
        finally:
            if timer is not None:
                timer.cancel()
            for box in boxes:
                box.close()
            job_log.close()
            with self._lock:
                self._workers = []

    def _secret(self, name: str) -> dict[str, bytes]:
        with self.store.read() as snapshot:
            return secrets.values(snapshot, name)

    def _worker(self, batch: bool, number: int, setting: Setting, box: sandbox.Box) -> Worker:
        name = f"{self.job.pipeline.name}-{number}"
        if batch:
            return batching.BatchWorker(name, setting, box, self._flush, self._serve)
        return Worker(name, setting, box, self._flush)

    def _remote(
        self, number: int, setting: Setting, place: Place, box: sandbox.Box, mounts: list[tuple[str, str]]
    ) -> RemoteWorker:
        start = Start(
            f"{self.job.pipeline.name}-{number}",
            self.store.path,
            setting.job.SerializeToString(),
            setting.details.SerializeToString(),
            setting.commits,
            setting.env,
            place,
            box.root,
            mounts,
            self._serve,
        )
        return RemoteWorker(start, setting, functools.partial(self._flush, inputs=list(setting.commits.values())))

    def _thread_of(self, worker: Worker | RemoteWorker, waiting: Todo) -> None:
        try:
            worker.work(waiting)
        except BaseException as problem:
            self._problems.append(problem)
            self.cancel()

    def _flush_old(self, over: threading.Event) -> None:
        workers = list(self._workers)
        while not over.wait(0.25):
            try:
                for worker in workers:
                    worker.flush_old()
            except BaseException as problem:
                self._problems.append(problem)
                self.cancel()
                return

    def _flush(self, batch: Batch, inputs: Sequence[Any] = ()) -> None:
        """Write down what a worker has done, in one transaction; Killed when the job has ended meanwhile.

        ``inputs``: the commits that hold what was read, where nothing else does; PachError when one is gone.
        """
        batch.seal()
        with writing(self.store) as txn:
            self._check(txn)
            for row in inputs:
                refs.resolve_commit(txn, (row.repo, row.id))
            batch.apply(txn, self.pk, self._row(txn, "user"), self._row(txn, "meta"))

    def _egress(self, info: pps_pb2.PipelineInfo) -> None:
        """Copy the output of a job whose datums all succeeded to where the spec says."""
        with writing(self.store) as txn:
            self._check(txn)
            if txn.db.execute("SELECT 1 FROM pps_datums WHERE job=? AND state=?", (self.pk, meta.FAILED)).fetchone():
                return
            txn.db.execute("UPDATE pps_jobs SET state=? WHERE pk=?", (jobs.EGRESSING, self.pk))
        url = egress.url_of(info.details.egress)
        for wait in (1.0, 4.0, None):
            try:
                with self.store.read() as snapshot:
                    view = read.View.of(snapshot, self._row(snapshot, "user"))
                    egress.push(url, view, self._cancelled)
                return
            except PachError as problem:
                if wait is None or isinstance(problem, PermissionDenied):
                    raise PachError(f"egress to {url} failed: {problem}") from None
                log.warning("%s; trying again in %s seconds", problem, wait)
                self._cancelled.wait(wait)
            if self._cancelled.is_set():
                raise Killed

    def _finish(self, todo: plan.Plan) -> None:
        with self._made_ahead(), writing(self.store) as txn:
            self._check(txn)
            row = jobs.find_pk(txn, self.pk)
            assert row is not None
            failed = txn.db.execute(
                "SELECT datum FROM pps_datums WHERE job=? AND state=? ORDER BY datum LIMIT 1", (self.pk, meta.FAILED)
            ).fetchone()
            if failed is None:
                jobs.finish(txn, row, jobs.SUCCESS)
            else:
                txn.db.execute("UPDATE pps_jobs SET skipped=0 WHERE pk=?", (self.pk,))
                first, why = next(iter(self._out_of_memory.items()), (failed["datum"], ""))
                jobs.finish(txn, row, jobs.FAILURE, f"datum {first} failed" + (f": {why}" if why else ""))

    @contextmanager
    def _made_ahead(self) -> Iterator[None]:
        """Make the trees of the job's commits, where they are large, before the transaction that finishes them."""
        with ExitStack() as trees:
            for kind in ("user", "meta"):
                with suppress(PachError):  # the job may be gone, which is seen later
                    with self.store.read() as snapshot:
                        row = self._row(snapshot, kind)
                    trees.callback(filesets.ahead_of_commit(self.store, row).close)
            yield

    def _postpone(self, problem: NotReady) -> None:
        """The workers cannot start now: the job stays as it is and the pipeline says why."""
        self.retry = problem.retry
        with writing(self.store) as txn:
            row = jobs.find_pk(txn, self.pk)
            if row is not None and row["state"] not in jobs.TERMINAL:
                pipelines.set_state(txn, row["pipeline"], pipelines.CRASHING, str(problem))

    def _recovered(self, pipeline: int) -> None:
        """The workers of a pipeline that was crashing can start again."""
        with self.store.read() as snapshot:
            row = snapshot.db.execute("SELECT state FROM pps_pipelines WHERE pk=?", (pipeline,)).fetchone()
        if row is not None and row["state"] == pipelines.CRASHING:
            with writing(self.store) as txn:
                pipelines.set_state(txn, pipeline, pipelines.RUNNING, "")

    def _time_out(self) -> None:
        self._end(jobs.KILLED, " jobtimed out", None)
        self.cancel()

    def _end(self, state: int, reason: str, problem: BaseException | None) -> None:
        with writing(self.store) as txn:
            row = jobs.find_pk(txn, self.pk)
            if row is None:
                return
            if isinstance(problem, sandbox.NoSandbox):
                pipelines.set_state(txn, row["pipeline"], pipelines.CRASHING, reason)
            jobs.finish(txn, row, state, reason)


def _delete_datum(view: Any, datum: str, out: modify.Modification, about: modify.Modification) -> None:
    """Delete what a datum put into the output and the meta repo."""
    kept = f"{meta.directory(datum)}out/"
    for entry in view.walk(meta.directory(datum)):
        if not entry.is_dir and entry.path.startswith(kept):
            out.delete(entry.path[len(kept) - 1 :], datum)
    about.delete(f"/meta/{datum}/", datum)
    about.delete(meta.directory(datum), datum)


def _check_supported(info: pps_pb2.PipelineInfo) -> None:
    details = info.details
    if not details.transform.cmd:
        raise PachError("nothing to run: no transform.cmd")
