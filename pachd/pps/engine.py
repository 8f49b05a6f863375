"""The engine: sees which jobs can run and runs them, one at a time per pipeline, in the order of their commits."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from pachd.errors import NotFound, PachError
from pachd.pfs import writing
from pachd.pps import batching, jobs, logs, pipelines
from pachd.pps.executor import Executor
from pachd.pps.run import Run
from pachd.pps.service import ServiceRun
from pachd.pps.standing import Standing
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot, Store, system

log = logging.getLogger(__name__)
_ENGINE = 3.0  # seconds between looks at a Docker engine without which nothing can run
_RETRY = 5.0  # seconds until a job whose end could not be recorded is tried again


class Engine:
    """Runs pipelines of one store.

    ``address`` is where pachd listens (told to the user's code); ``worker_service`` starts the gRPC service of a
    long-lived worker, None where there is none; ``executor`` is where workers run: see `pachd.pps.executor`.
    """

    def __init__(
        self,
        store: Store,
        address: str = "127.0.0.1:30650",
        worker_service: batching.Serve | None = None,
        executor: str = "auto",
    ) -> None:
        self.store = store
        self.worker_service = worker_service
        self.work = Path(store.path) / "work"
        self.executor = Executor(store.path, address, executor)
        self._wake = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._standing = Standing(store, self.work, self.executor)
        self._runs: dict[int, Run | ServiceRun] = {}  # by pipeline
        self._not_before: dict[int, float] = {}  # by job: when it may be tried again, monotonic seconds
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin; jobs that a crash interrupted go on where their last flush left them."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.executor.start()
        self._standing.start()
        self._unsubscribe = self.store.subscribe(self._wake.set)
        self._wake.set()
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop scheduling and the workers; running jobs go on at the next start."""
        self._stopping = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self._standing.stop(timeout)
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        for run in runs:
            run.join(timeout)

    def workers(self, job: pps_pb2.Job) -> list[pps_pb2.WorkerStatus]:
        """What the workers of a running job do now."""
        run = self._find(job)
        return run.status() if run else []

    def restart_datum(self, job: pps_pb2.Job, filters: list[str]) -> None:
        """Begin running datums anew; PachError when none matches."""
        run = self._find(job)
        if run is None or not run.restart(filters):
            raise PachError(f"datum matching filter [{' '.join(filters)}] could not be found for job ID {job.id}")

    def _find(self, job: pps_pb2.Job) -> Run | ServiceRun | None:
        project = job.pipeline.project.name or "default"
        with self._lock:
            for run in self._runs.values():
                mine = run.job
                if (mine.id, mine.pipeline.name, mine.pipeline.project.name) == (job.id, job.pipeline.name, project):
                    return run
        return None

    def _loop(self) -> None:
        while True:
            self._wake.wait(_ENGINE if self.executor.containers_only else None)
            if self._stopping:
                return
            self._wake.clear()
            try:
                self._schedule()
            except Exception:
                log.exception("scheduling failed; trying again in %s seconds", _RETRY)
                self._wake_in(_RETRY)

    def _wake_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._wake.set)
        timer.daemon = True
        timer.start()

    def _schedule(self) -> None:
        self._reap()
        self._standing.update()
        with self.store.read() as snapshot:
            rows = snapshot.db.execute(
                "SELECT MIN(j.pk) AS pk, j.pipeline FROM pps_jobs j WHERE j.finished=0 GROUP BY j.pipeline"
            ).fetchall()
            first = {row["pipeline"]: row["pk"] for row in rows}
            states = snapshot.db.execute(
                "SELECT p.*, v.info FROM pps_pipelines p JOIN pps_versions v ON v.pipeline=p.pk "
                "AND v.version=p.version WHERE p.state IN (?,?,?,?) AND p.stopped=0",
                (pipelines.STARTING, pipelines.RUNNING, pipelines.STANDBY, self._crashing()),
            ).fetchall()
            failed = [pk for pk in first if self._has_failed(snapshot, pk)]
            ready = {
                pk: self._readiness(snapshot, pk)
                for pipeline, pk in first.items()
                if pipeline not in failed and not self._busy(pipeline)
            }
        for row in states:
            self._pipeline_state(row, first)
        for pipeline in failed:  # until it is updated nothing of it runs
            with writing(self.store) as txn:
                jobs.stop_all(txn, pipeline, "job stopped")
        now = system.monotonic()
        self._not_before = {pk: when for pk, when in self._not_before.items() if when > now}
        for pipeline, pk in first.items():
            if pk in ready and pk not in self._not_before and not self._stopping:
                self._advance(pipeline, pk, *ready[pk])

    def _crashing(self) -> int:
        """The state of pipelines that come back by themselves, as far as it is looked at here."""
        return pipelines.CRASHING if self.executor.containers_only else pipelines.RUNNING

    def _reap(self) -> None:
        """Cancel runs whose job was ended or deleted by somebody, forget runs that are over."""
        with self._lock:
            runs = dict(self._runs)
        for pipeline, run in runs.items():
            if not run.alive():
                with self._lock:
                    self._runs.pop(pipeline, None)
                if run.retry:
                    self._not_before[run.pk] = system.monotonic() + run.retry
                    self._wake_in(run.retry)
                continue
            with self.store.read() as snapshot:
                row = jobs.find_pk(snapshot, run.pk)
            if row is None or row["state"] in jobs.TERMINAL:
                run.cancel()

    def _busy(self, pipeline: int) -> bool:
        with self._lock:
            return pipeline in self._runs

    @staticmethod
    def _has_failed(txn: Snapshot, pipeline: int) -> bool:
        row = txn.db.execute("SELECT state FROM pps_pipelines WHERE pk=?", (pipeline,)).fetchone()
        return row is not None and row["state"] == pipelines.FAILURE

    def _readiness(self, txn: Snapshot, pk: int) -> tuple[str, list[str]]:
        """('ready', []), ('waiting', []) or ('failed', names of the inputs that failed)."""
        row = jobs.find_pk(txn, pk)
        if row is None:
            return "waiting", []
        info = pps_pb2.PipelineInfo.FromString(row["info"])
        try:
            inputs = list(jobs.input_commits(txn, info, row["id"]).values())
        except NotFound:
            return "waiting", []
        if any(commit.state != pfs_pb2.FINISHED for commit in inputs):
            return ("waiting" if row["state"] == jobs.STARTING else "starting"), []
        failed = jobs.failed_upstream(txn, info, row["id"])
        return ("failed", failed) if failed else ("ready", [])

    def _advance(self, pipeline: int, pk: int, state: str, failed: list[str]) -> None:
        if state == "starting":
            with writing(self.store) as txn:
                txn.db.execute("UPDATE pps_jobs SET state=? WHERE pk=? AND state=?", (jobs.STARTING, pk, jobs.CREATED))
        elif state == "failed":
            with writing(self.store) as txn:
                row = jobs.find_pk(txn, pk)
                if row is not None:
                    jobs.finish(
                        txn,
                        row,
                        jobs.UNRUNNABLE,
                        "unrunnable because the following upstream pipelines failed: " + ", ".join(failed),
                    )
        elif state == "ready":
            run = self._make(pk)
            with self._lock:
                self._runs[pipeline] = run
            run.start()

    def _make(self, pk: int) -> Run | ServiceRun:
        with self.store.read() as snapshot:
            row = jobs.find_pk(snapshot, pk)
        if row is not None and pps_pb2.PipelineInfo.FromString(row["info"]).details.HasField("service"):
            return ServiceRun(self.store, pk, self.work, self.executor, self._wake.set)
        return Run(self.store, pk, self.work, self.executor, self.worker_service, self._wake.set)

    def _pipeline_state(self, row: sqlite3.Row, first: dict[int, int]) -> None:
        """STARTING becomes RUNNING, or FAILURE with the reason why it cannot run."""
        info = pps_pb2.PipelineInfo.FromString(row["info"])
        if row["state"] == pipelines.CRASHING and row["pk"] in first:
            return  # the job will tell
        wanted, reason = pipelines.RUNNING, ""
        if not info.details.transform.cmd:
            wanted, reason = pipelines.FAILURE, "nothing to run: no transform.cmd"
        elif problem := self.executor.problem():
            wanted, reason = pipelines.CRASHING, problem
        elif info.details.autoscaling and row["pk"] not in first:
            wanted = pipelines.STANDBY
        if wanted == row["state"]:
            return
        with writing(self.store) as txn:
            pipelines.set_state(txn, row["pk"], wanted, reason)
            if wanted == pipelines.FAILURE:
                jobs.stop_all(txn, row["pk"], "job stopped")


def remove_logs(store: Store) -> None:
    """Remove the logs of pipelines that are gone."""
    with store.read() as snapshot:
        kept = {str(row["pk"]) for row in snapshot.db.execute("SELECT pk FROM pps_pipelines")}
    folder = logs.folder(store.path)
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)
