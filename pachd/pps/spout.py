"""Spouts: pipelines without jobs, whose code runs for ever and makes commits by itself."""

from __future__ import annotations

import threading
from pathlib import Path

from pachd.pps import logs
from pachd.pps.executor import Executor
from pachd.pps.layout import Layout
from pachd.pps.resident import Resident, credentials
from pachd.proto import pps_pb2
from pachd.store import Store

JOB = "spout"  # what a spout's log is called in place of a job
MOST = 16  # processes of one spout on this machine


class Spout:
    """The running code of one spout: `start` it, `cancel` it, `join` it."""

    def __init__(self, store: Store, pipeline: int, info: pps_pb2.PipelineInfo, work: Path, executor: Executor) -> None:
        self._store = store
        count = min(max(1, info.details.parallelism_spec.constant), MOST)
        self._log = logs.JobLog(logs.path(store.path, pipeline, JOB), endless=True)
        env = {"PPS_PIPELINE_NAME": info.pipeline.name, "PPS_PROJECT_NAME": info.pipeline.project.name}
        env["PPS_SPEC_COMMIT"] = info.spec_commit.id
        env |= credentials(store, info.pipeline)
        self._residents = [
            Resident(
                store,
                pipeline,
                info,
                executor,
                work / f"spout-{pipeline}-{info.version}-{number}",
                self._log,
                lambda box: Layout(box.pfs).clear(),
                env,
                f"{info.pipeline.name}-{number}",
                JOB,
            )
            for number in range(count)
        ]
        self._threads = [threading.Thread(target=r.run, name=JOB, daemon=True) for r in self._residents]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def cancel(self) -> None:
        """End the code."""
        for resident in self._residents:
            resident.cancel()

    def join(self, timeout: float | None = None) -> None:
        for thread in self._threads:
            thread.join(timeout)
        self._log.close()
