"""What runs beside the jobs: the clock of cron inputs and the code of spouts."""

from __future__ import annotations

import logging
from pathlib import Path

from pachd.pps import cron, pipelines
from pachd.pps.executor import Executor
from pachd.pps.spout import Spout
from pachd.proto import pps_pb2
from pachd.store import Store

log = logging.getLogger(__name__)


class Standing:
    """`update` it whenever pipelines may have come, changed, stopped or gone; `stop` it at the end."""

    def __init__(self, store: Store, work: Path, executor: Executor) -> None:
        self._store, self._work, self._executor = store, work, executor
        self._clock = cron.Clock(store)
        self._known: frozenset[tuple[int, int]] = frozenset()  # (pipeline, version)
        self._spouts: dict[tuple[int, int], Spout] = {}

    def start(self) -> None:
        self._clock.start()

    def update(self) -> None:
        """Start what is new and end what is gone."""
        with self._store.read() as snapshot:
            rows = snapshot.db.execute(
                "SELECT pk, version FROM pps_pipelines WHERE stopped=0 AND state<>?", (pipelines.FAILURE,)
            ).fetchall()
            known = frozenset((row["pk"], row["version"]) for row in rows)
            if known == self._known:
                return
            found = pipelines.running(snapshot)
        gone = [self._spouts.pop(key) for key in list(self._spouts) if key not in known]
        for spout in gone:
            spout.cancel()
        for spout in gone:
            spout.join(10)
        for row in found:
            key = (row["pk"], row["shown"])
            info = pps_pb2.PipelineInfo.FromString(row["info"])
            if key in self._spouts or not info.details.HasField("spout") or not info.details.transform.cmd:
                continue
            info.version, info.spec_commit.id = row["shown"], row["spec_commit"]
            try:
                self._spouts[key] = Spout(self._store, row["pk"], info, self._work, self._executor)
            except Exception:  # jobs of others go on
                log.exception("the spout %s cannot start", info.pipeline.name)
                continue
            self._spouts[key].start()
        self._known = known
        self._clock.wake()

    def stop(self, timeout: float = 10.0) -> None:
        """End everything."""
        self._clock.stop(timeout)
        for spout in self._spouts.values():
            spout.cancel()
        for spout in self._spouts.values():
            spout.join(timeout)
