"""Cron inputs: a repo that gets an empty file, named after the time, whenever its schedule says so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from pachd.errors import PachError
from pachd.pfs import modify, read, refs, schedule, writing
from pachd.pps import inputs, lookup, pipelines
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot, Store, system
from pachd.types import Repo

log = logging.getLogger(__name__)
_SECOND = 1_000_000_000
_RETRY = 5.0  # seconds
_LOT = 20  # ticks made up for before other inputs have their turn
_LONGEST = 3600.0  # seconds between looks at the clock: it may be set


def crons(details: pps_pb2.PipelineInfo.Details) -> Iterator[pps_pb2.CronInput]:
    """The cron inputs of a spec."""
    for part in inputs.walk(details.input) if details.HasField("input") else ():
        if part.HasField("cron"):
            yield part.cron


def _stamp(ns: int) -> str:
    return datetime.fromtimestamp(ns // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_stamp(name: str) -> int:
    try:
        return int(datetime.fromisoformat(name.replace("Z", "+00:00")).timestamp()) * _SECOND
    except ValueError:
        return 0  # somebody's own file


def repo_of(cron: pps_pb2.CronInput) -> Repo:
    """The repo of a cron input's ticks."""
    return Repo(cron.project or "default", cron.repo, "user")


def latest(txn: Snapshot, cron: pps_pb2.CronInput) -> int:
    """The time (ns) from which the next tick counts: the newest tick's, or the input's start if that is later."""
    start = cron.start.ToNanoseconds()
    row = refs.resolve_commit(txn, (repo_of(cron), "master"))
    stamps = (_parse_stamp(entry.path.strip("/")) for entry in read.View.of(txn, row).list("/"))
    return max([start, *stamps])


def tick(store: Store, cron: pps_pb2.CronInput, ns: int, wanted: Callable[[Snapshot], bool] = lambda txn: True) -> None:
    """Commit one tick, if it is still wanted when it is its turn to write."""
    repo = refs.repo_pb(repo_of(cron))
    commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
    with modify.Modification(store) as change:
        if cron.overwrite:
            change.delete("/")
        change.append(f"/{_stamp(ns)}", b"")
        with writing(store) as txn:
            if wanted(txn):
                modify.modify_file(txn, commit, change)


def run_now(store: Store, pipeline: pps_pb2.Pipeline) -> None:
    """RunCron: tick all cron inputs of a pipeline now.

    Raises NotFound, and PachError when the pipeline has none.
    """
    with store.read() as snapshot:
        details = pps_pb2.PipelineInfo.FromString(lookup.find(snapshot, pipeline)["info"]).details
    found = list(crons(details))
    if not found:
        raise PachError("pipeline doesn't have a cron input")
    now = system.now_ns()
    for cron in found:
        tick(store, cron, now)


def _ticks(txn: Snapshot, key: tuple[int, int, str]) -> bool:
    """Whether the pipeline has this version still, and is not stopped: it may have been since the clock looked."""
    return any((row["pk"], row["shown"]) == key[:2] for row in pipelines.running(txn))


class Clock:
    """Ticks the cron inputs of all pipelines that are not stopped, in a thread of its own.

    Ticks that were due while pachd was down are made up for, one commit each, as Pachyderm does it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = threading.Event()
        self._stopping = False
        self._seen: dict[tuple[int, int, str], int] = {}  # (pipeline, version, input) -> its latest tick
        self._thread = threading.Thread(target=self._loop, name="cron", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look again: pipelines may have come, changed or gone."""
        self._wake.set()

    def stop(self, timeout: float = 10.0) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)

    def _loop(self) -> None:
        while not self._stopping:
            try:
                delay = self._look()
            except Exception:
                log.exception("cron inputs could not be ticked; trying again in %s seconds", _RETRY)
                delay = _RETRY
            self._wake.wait(delay)
            self._wake.clear()

    def _look(self) -> float:
        """Make what is due; returns the seconds until more is."""
        soonest = _LONGEST
        for key, cron in self._inputs():
            if self._stopping:
                break
            try:
                soonest = min(soonest, self._tick(key, cron))
            except PachError as problem:
                log.error("cannot tick %s: %s", repo_of(cron), problem)
                soonest = min(soonest, _RETRY)
        return soonest

    def _tick(self, key: tuple[int, int, str], cron: pps_pb2.CronInput) -> float:
        next_time = schedule.parse(cron.spec)
        for _ in range(_LOT):
            due = next_time(self._seen[key])
            if due > system.now_ns() or self._stopping:
                return max(0.0, (due - system.now_ns()) / _SECOND)
            tick(self._store, cron, due, lambda txn: _ticks(txn, key))
            self._seen[key] = due
        return 0.0

    def _inputs(self) -> list[tuple[tuple[int, int, str], pps_pb2.CronInput]]:
        found = []
        with self._store.read() as snapshot:
            for row in pipelines.running(snapshot):
                for cron in crons(pps_pb2.PipelineInfo.FromString(row["info"]).details):
                    key = (row["pk"], row["shown"], cron.name)
                    try:
                        if key not in self._seen:
                            self._seen[key] = latest(snapshot, cron)
                    except PachError as problem:  # somebody has deleted the repo or its branch
                        log.error("cannot tick %s: %s", repo_of(cron), problem)
                        continue
                    found.append((key, cron))
        kept = {key for key, _cron in found}
        self._seen = {key: when for key, when in self._seen.items() if key in kept}
        return found
