"""Services: pipelines whose code runs for ever on one datum, and is started anew for every job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from pachd.errors import NotFound, PachError
from pachd.pfs import read, writing
from pachd.pps import datums, jobs, logs, plan, staging
from pachd.pps.datums import Datum
from pachd.pps.executor import Executor
from pachd.pps.layout import Layout
from pachd.pps.lazy import Pipes
from pachd.pps.resident import Resident, credentials
from pachd.pps.sandbox import Box
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot, Store

log = logging.getLogger(__name__)


class ServiceRun:
    """The run of a service's job.  It has the methods of `pachd.pps.run.Run`, and ends when a newer job is ready."""

    retry = 0.0

    def __init__(self, store: Store, pk: int, work: Path, executor: Executor, ended: Callable[[], object]) -> None:
        self.store, self.pk = store, pk
        self.job = pps_pb2.Job()
        self._work, self._executor, self._ended = work, executor, ended
        self._news = threading.Event()
        self._cancelled = False
        self._resident: Resident | None = None
        self._datum: Datum | None = None
        self._thread = threading.Thread(target=self._main, name=f"service-{pk}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Stop the code. The job's row is not touched."""
        self._cancelled = True
        self._news.set()
        if self._resident is not None:
            self._resident.cancel()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def status(self) -> list[pps_pb2.WorkerStatus]:
        """What the worker does now."""
        found = pps_pb2.WorkerStatus(worker_id=f"{self.job.pipeline.name}-0", job_id=self.job.id)
        if self._datum is not None:
            found.datum_status.data.extend(pps_pb2.InputFile(path=f.path, hash=f.hash) for f in self._datum.files)
        return [found]

    def restart(self, filters: list[str]) -> bool:
        """A service's datum is not restarted: the next job does it."""
        return False

    def _main(self) -> None:
        unsubscribe = self.store.subscribe(self._news.set)
        try:
            self._run()
        except Exception as problem:
            try:
                self._fail(problem)
            except Exception:  # the disk may be full: the job stays unfinished and is tried again later
                log.exception("cannot record the failure of job %s: %s", self.job.id, problem)
        finally:
            unsubscribe()
            self._ended()

    def _run(self) -> None:
        with writing(self.store) as txn:
            row = jobs.find_pk(txn, self.pk)
            if row is None or row["state"] in jobs.TERMINAL:
                return
            self.job = jobs.message(row)
            txn.db.execute("UPDATE pps_jobs SET state=? WHERE pk=?", (jobs.RUNNING, self.pk))
        info = pps_pb2.PipelineInfo.FromString(row["info"])
        with self.store.read() as snapshot:
            found = datums.create(info.details.input, plan.glob(snapshot, row["id"]))
        if len(found) > 1:
            raise PachError(f"services must have a single datum, the input of this one makes {len(found)}")
        if not info.details.transform.cmd:
            raise PachError("nothing to run: no transform.cmd")
        job_log = logs.JobLog(logs.path(self.store.path, row["pipeline"], row["id"]), endless=True)
        thread = None
        try:
            if found:
                self._datum = found[0]
                self._resident = self._make(info, row["pipeline"], found[0], job_log)
                if not self._cancelled:
                    thread = threading.Thread(target=self._resident.run, name=f"code-{self.pk}", daemon=True)
                    thread.start()
            else:
                job_log.write("the input is empty: the service waits for data", None, "pachd", user=False)
                job_log.flush()
            self._wait_for_newer(row["pipeline"])
        finally:
            if self._resident is not None:
                self._resident.cancel()
            if thread is not None:
                thread.join()
            job_log.close()
        if not self._cancelled:
            self._end(jobs.SUCCESS, "")

    def _make(self, info: pps_pb2.PipelineInfo, pipeline: int, datum: Datum, job_log: logs.JobLog) -> Resident:
        datum = Datum(datum.id, tuple(file._replace(lazy=False) for file in datum.files))  # it stays: no pipes
        own = staging.environment(datum, self.job.id)
        env = {**own, "PPS_PIPELINE_NAME": info.pipeline.name, "PPS_PROJECT_NAME": info.pipeline.project.name}
        env["PPS_SPEC_COMMIT"] = info.spec_commit.id or self.job.id
        env |= credentials(self.store, info.pipeline)

        def prepare(box: Box) -> None:
            with self.store.read() as snapshot:
                rows = {(r.repo, r.id): r for r in jobs.input_commits(snapshot, info, self.job.id).values()}
                pipes[0].close()
                staged = staging.stage(
                    Layout(box.pfs),
                    datum,
                    staging.env_file(own),
                    snapshot,
                    lambda commit: read.View.of(snapshot, rows[commit]).tree,
                )
                pipes[0] = Pipes(self.store, staged.pipes)

        pipes = [Pipes(self.store, [])]  # of lazy inputs
        root = self._work / f"service-{self.pk}"
        return Resident(
            self.store,
            pipeline,
            info,
            self._executor,
            root,
            job_log,
            prepare,
            env,
            f"{info.pipeline.name}-0",
            self.job.id,
        )

    def _wait_for_newer(self, pipeline: int) -> None:
        """Return when the job was ended by somebody, or a newer job of the pipeline can run."""
        while not self._cancelled:
            self._news.clear()
            with self.store.read() as snapshot:
                if self._over(snapshot, pipeline):
                    return
            self._news.wait()

    def _over(self, txn: Snapshot, pipeline: int) -> bool:
        if jobs.is_over(txn, self.pk):
            self._cancelled = True
            return True
        newer = txn.db.execute(
            "SELECT pk FROM pps_jobs WHERE pipeline=? AND pk>? AND finished=0 ORDER BY pk", (pipeline, self.pk)
        ).fetchall()
        for found in newer:
            row = jobs.find_pk(txn, found["pk"])
            if row is None:
                continue
            try:
                commits = jobs.input_commits(txn, pps_pb2.PipelineInfo.FromString(row["info"]), row["id"]).values()
            except NotFound:
                continue
            if all(commit.state == pfs_pb2.FINISHED for commit in commits):
                return True
        return False

    def _fail(self, problem: Exception) -> None:
        """End the job with this reason. One that was deleted or stopped meanwhile has ended, and that is why."""
        known = isinstance(problem, PachError)
        reason = str(problem) if known else f"{type(problem).__name__}: {problem}"
        with self.store.read() as snapshot:
            over = jobs.is_over(snapshot, self.pk)
        if known and over:
            log.info("job %s ends, as it was deleted or stopped meanwhile: %s", self.job.id, reason)
            return
        if not known:
            log.error("the service of job %s failed: %s", self.job.id, reason, exc_info=problem)
        self._end(jobs.FAILURE, reason)

    def _end(self, state: int, reason: str) -> None:
        with writing(self.store) as txn:
            row = jobs.find_pk(txn, self.pk)
            if row is not None:
                jobs.finish(txn, row, state, reason)
